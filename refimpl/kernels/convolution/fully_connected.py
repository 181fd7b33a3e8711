"""FULLY_CONNECTED: a 1x1 convolution over one row of pixels, one per batch element."""

from __future__ import annotations

from karat24.refimpl.contract import Kernel, Target
from karat24.refimpl.graph import LayerView
from karat24.refimpl.kernels.convolution.dense import prepare_dense
from karat24.refimpl.kernels.convolution.pixels_as_channels import ConvolutionShapes
from karat24.refimpl.kernels.convolution.tiling import convolution_sampling
from karat24.refimpl.profiles.rules import Rule


def prepare_fully_connected(view: LayerView, rule: Rule, target: Target) -> Kernel | None:
    """FULLY_CONNECTED: data of any shape read as [rows, depth], filter [filters, depth], optional bias.

    None (the spec then runs) for a filter that the graph computes or whose int8 zero point is not 0.
    """
    filter_ = view.input(1)
    offset = filter_.quantization is not None and any(filter_.quantization.zero_point)
    if filter_.data is None or (filter_.dtype == "int8" and offset):
        return None
    filters, depth = view.input(1).shape
    size = 1
    for extent in view.input(0).shape:
        size *= extent
    rows = size // depth
    one = convolution_sampling(1, 1, 1, 1, 0)
    columns = convolution_sampling(rows, 1, 1, 1, 0)
    shapes = ConvolutionShapes(
        (1, 1, rows, depth), (1, 1, rows, filters), (filters, 1, 1, depth), one, columns
    )
    return prepare_dense(view, rule, target, shapes, (0, 1, 2))
