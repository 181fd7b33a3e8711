"""Few output channels: neighbouring pixels of a row computed as the channels of one pixel.

A block of the micro-kernel has 16 output channels; a filter to one channel would waste fifteen. But a row
of n outputs with f channels is, byte for byte, one of n / m outputs with m * f channels, and the filter
of output i of m is the same one moved by i strides. For stride s and t taps that filter has
s * (m - 1) + t taps, most of them 0 for most channels: less work than m times t if s is at most t.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from karat24.refimpl.kernels.convolution.tiling import Sampling
from karat24.refimpl.kernels.microkernel.microkernel import FEW_PIXELS
from karat24.refimpl.kernels.rounding.requantize_block import LANES

MOST_VALUES = 1024
"""Most input values from one group of pixels to the next: with more, a tile would leave the cache."""


class ConvolutionShapes(NamedTuple):
    """Shapes of a dense convolution: input and output NHWC, filter OHWI, samplings along y and x."""

    input: tuple[int, ...]
    output: tuple[int, ...]
    filter: tuple[int, int, int, int]
    rows: Sequence[Sampling]
    columns: Sequence[Sampling]


def pixels_side_by_side(shapes: ConvolutionShapes) -> int:
    """The number of outputs of a row to compute as channels of one; 1 where that does not pay."""
    filters, _, _, channels = shapes.filter
    if len(shapes.columns) > 1 or channels != shapes.input[3]:
        return 1
    (x,) = shapes.columns
    if x.tap_step > 1 or x.in_step > x.taps:
        return 1
    most = min(LANES // filters, x.outputs // (FEW_PIXELS + 1), MOST_VALUES // max(x.in_step * channels, 1))
    return next((count for count in range(most, 1, -1) if x.outputs % count == 0), 1)


def as_channels(
    shapes: ConvolutionShapes, filters: NDArray[np.int16], count: int
) -> tuple[ConvolutionShapes, NDArray[np.int16]]:
    """The convolution that computes ``count`` outputs of a row as channels of one, and its filter OHWI."""
    (x,) = shapes.columns
    taken = filters[:, :, x.filter_taps]
    outputs, taps_y, taps, channels = taken.shape
    wide = np.zeros((count, outputs, taps_y, x.in_step * (count - 1) + taps, channels), filters.dtype)
    for number in range(count):
        wide[number, :, :, number * x.in_step : number * x.in_step + taps] = taken
    moved = wide.reshape(count * outputs, taps_y, -1, channels)
    columns = x._replace(
        outputs=x.outputs // count, in_step=x.in_step * count, filter_taps=tuple(range(moved.shape[2]))
    )
    output = *shapes.output[:2], columns.outputs, len(moved)
    filter_shape = len(moved), taps_y, columns.taps, channels
    return ConvolutionShapes(shapes.input, output, filter_shape, shapes.rows, (columns,)), moved
