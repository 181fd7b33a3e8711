"""FULLY_CONNECTED: a 1x1 convolution over one row of pixels, one per batch element."""

from __future__ import annotations

from karat24.refimpl.contract import Kernel, Target
from karat24.refimpl.graph import LayerView
from karat24.refimpl.kernels.convolution.dense import prepare_dense
from karat24.refimpl.kernels.convolution.pixels_as_channels import ConvolutionShapes
from karat24.refimpl.kernels.convolution.tiling import convolution_sampling
from karat24.refimpl.profiles.rules import Rule


def prepare_fully_connected(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """FULLY_CONNECTED: data of any shape read as [rows, depth], filter [filters, depth], optional bias."""
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
