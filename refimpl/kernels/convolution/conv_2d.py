"""CONV_2D: the general loop, or Winograd's where it is exact and faster."""

from __future__ import annotations

from karat24.refimpl.contract import Target
from karat24.refimpl.graph import LayerView
from karat24.refimpl.kernels.convolution.base import AccumulatingKernel
from karat24.refimpl.kernels.convolution.dense import prepare_dense
from karat24.refimpl.kernels.convolution.pixels_as_channels import ConvolutionShapes
from karat24.refimpl.kernels.convolution.tiling import convolution_sampling, padding_before
from karat24.refimpl.kernels.convolution.winograd.convolution import prepare_winograd
from karat24.refimpl.profiles.rules import Rule


def prepare_convolution(view: LayerView, rule: Rule, target: Target) -> AccumulatingKernel:
    """CONV_2D: input NHWC, filter OHWI, optional bias; strides, dilation, groups, SAME and VALID."""
    return prepare_padded_convolution(view, rule, target, paddings_before(view, view.input(1).shape[1:3]))


def paddings_before(view: LayerView, taps: tuple[int, ...]) -> tuple[int, int]:
    """Rows above and columns before the image, from ``padding`` and the sizes of image and filter."""
    y, x = (
        padding_before(
            view.text("padding"), view.input(0).shape[1 + axis], taps[axis],
            view.integer(f"stride_{name}"), view.integer(f"dilation_{name}_factor", 1),
        )
        for axis, name in enumerate("hw")
    )  # fmt: skip
    return y, x


def prepare_padded_convolution(
    view: LayerView, rule: Rule, target: Target, before: tuple[int, int]
) -> AccumulatingKernel:
    """CONV_2D whose first window begins ``before`` rows above and columns left of the image."""
    batch, in_height, in_width, in_channels = view.input(0).shape
    filters, taps_y, taps_x, group_channels = view.input(1).shape
    _, out_height, out_width, _ = view.output().shape
    strides = view.integer("stride_h"), view.integer("stride_w")
    whole = before == (0, 0) and (in_height, in_width) == (out_height, out_width)
    if (taps_y, taps_x) == (1, 1) == strides and whole:
        # Pixels are independent: one long row makes full tiles of small images.
        batch, in_height, in_width = 1, 1, batch * in_height * in_width
        out_height, out_width = 1, in_width
    dilations = view.integer("dilation_h_factor", 1), view.integer("dilation_w_factor", 1)
    rows = convolution_sampling(out_height, taps_y, strides[0], dilations[0], before[0])
    columns = convolution_sampling(out_width, taps_x, strides[1], dilations[1], before[1])
    if in_width == out_width == taps_x == 1 and before[1] == 0:
        # A column lies in memory like a row, and tiles are cut along rows.
        (in_height, in_width), (out_height, out_width) = (1, in_height), (1, out_height)
        (taps_y, taps_x), (rows, columns) = (1, taps_y), (columns, rows)
    shapes = ConvolutionShapes(
        (batch, in_height, in_width, in_channels), (batch, out_height, out_width, filters),
        (filters, taps_y, taps_x, group_channels), rows, columns,
    )  # fmt: skip
    winograd = prepare_winograd(view, rule, target, shapes)
    return winograd or prepare_dense(view, rule, target, shapes, (0, 1, 2))
