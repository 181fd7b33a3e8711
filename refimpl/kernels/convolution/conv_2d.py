"""CONV_2D: the general loop, or Winograd's where it is exact and faster."""

from __future__ import annotations

from refimpl.contract import Kernel, Target
from refimpl.graph import LayerView
from refimpl.kernels.convolution.dense import prepare_dense
from refimpl.kernels.convolution.pixels_as_channels import ConvolutionShapes
from refimpl.kernels.convolution.tiling import convolution_sampling
from refimpl.kernels.convolution.winograd.convolution import prepare_winograd
from refimpl.profiles.rules import Rule


def prepare_convolution(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """CONV_2D: input NHWC, filter OHWI, optional bias; strides, dilation, groups, SAME and VALID."""
    batch, in_height, in_width, in_channels = view.input(0).shape
    filters, taps_y, taps_x, group_channels = view.input(1).shape
    _, out_height, out_width, _ = view.output().shape
    padding = view.text("padding")
    strides = view.integer("stride_h"), view.integer("stride_w")
    if (taps_y, taps_x) == (1, 1) == strides:
        # Pixels are independent: one long row makes full tiles of small images.
        batch, in_height, in_width = 1, 1, batch * in_height * in_width
        out_height, out_width = 1, in_width
    dilations = view.integer("dilation_h_factor", 1), view.integer("dilation_w_factor", 1)
    rows = convolution_sampling(in_height, out_height, taps_y, strides[0], dilations[0], padding)
    columns = convolution_sampling(in_width, out_width, taps_x, strides[1], dilations[1], padding)
    if in_width == out_width == taps_x == 1:
        # A column lies in memory like a row, and tiles are cut along rows.
        (in_height, in_width), (out_height, out_width) = (1, in_height), (1, out_height)
        (taps_y, taps_x), (rows, columns) = (1, taps_y), (columns, rows)
    shapes = ConvolutionShapes(
        (batch, in_height, in_width, in_channels), (batch, out_height, out_width, filters),
        (filters, taps_y, taps_x, group_channels), rows, columns,
    )  # fmt: skip
    winograd = prepare_winograd(view, rule, target, shapes)
    return winograd or prepare_dense(view, rule, target, shapes, (0, 1, 2))
