"""TRANSPOSE_CONV as interleaved ordinary convolutions: gathered, so threads never share an output."""

from __future__ import annotations

from karat24.refimpl.contract import Kernel, Target
from karat24.refimpl.graph import LayerView
from karat24.refimpl.kernels.convolution.dense import prepare_dense
from karat24.refimpl.kernels.convolution.pixels_as_channels import ConvolutionShapes
from karat24.refimpl.kernels.convolution.tiling import transposed_sampling
from karat24.refimpl.profiles.rules import Rule


def prepare_transposed(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """TRANSPOSE_CONV: inputs output_shape, filter OHWI, data NHWC, optional bias; SAME and VALID."""
    data, output = view.input(2), view.output()
    filters, taps_y, taps_x, in_channels = view.input(1).shape
    padding = view.text("padding")
    rows = transposed_sampling(data.shape[1], output.shape[1], taps_y, view.integer("stride_h"), padding)
    columns = transposed_sampling(data.shape[2], output.shape[2], taps_x, view.integer("stride_w"), padding)
    shapes = ConvolutionShapes(
        data.shape, output.shape, (filters, taps_y, taps_x, in_channels), rows, columns
    )
    return prepare_dense(view, rule, target, shapes, (2, 1, 3))
