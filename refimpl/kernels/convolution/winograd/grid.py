"""How a convolution is cut into Winograd's tiles, and whether that pays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from karat24.refimpl.kernels.convolution.pixels_as_channels import ConvolutionShapes, pixels_side_by_side
from karat24.refimpl.kernels.convolution.tiling import equal_blocks
from karat24.refimpl.kernels.convolution.winograd.transforms import (
    INPUT_LANES,
    OUTPUT_LANES,
    POINTS,
    TAPS,
    TILE,
)
from karat24.refimpl.kernels.microkernel.blocking import Blocking
from karat24.refimpl.kernels.microkernel.microkernel import OF_PAIRS, microkernel_for

MOST_TILES, VALUES_BYTES = 36, 512 * 1024
"""Tiles of a task, and the bytes of their transformed inputs: both stay in the second-level cache."""

PRODUCTS_SAVED = 2
"""A quarter of the products, each of them twice as wide."""

PIXEL_COST, INPUT_COST, OUTPUT_COST = 9, 330, 230
"""Costs in multiplications of 16 channels: of a vector of outputs besides its products, of transforming a
tile's vector of inputs, and of its outputs. Measured on one Zen 4 core with AVX512-VNNI; AVX2 differs
little."""

SAVED_AT_LEAST = 1.05
"""Winograd's loop is chosen where the ordinary loop takes at least this many times its cost."""


class WinogradGrid(NamedTuple):
    """Sizes the compiled loop needs.

    Output (0, 0) reads from input (``in_y``, ``in_x``). An image is ``down`` rows of ``across`` tiles; a task
    takes ``share`` of the ``tiles`` of all images, row by row. ``pitch``: channels of a transformed input in
    memory; ``blocks`` of output channels.
    """

    in_height: int
    in_width: int
    in_channels: int
    in_y: int
    in_x: int
    out_height: int
    out_width: int
    out_pitch: int
    filters: int
    blocks: int
    across: int
    down: int
    tiles: int
    share: int
    pitch: int

    @property
    def tasks(self) -> int:
        """Number of tasks."""
        return -(-self.tiles // self.share)


def plan_grid(shapes: ConvolutionShapes, blocking: Blocking, threads: int) -> WinogradGrid:
    """The tiles of a convolution, for at most ``threads`` threads."""
    batches, in_height, in_width, in_channels = shapes.input
    _, out_height, out_width, filters = shapes.output
    (y,), (x,) = shapes.rows, shapes.columns
    across, down = -(-out_width // TILE), -(-out_height // TILE)
    pitch = -(-in_channels // INPUT_LANES) * INPUT_LANES
    tiles = batches * down * across
    most = max(min(MOST_TILES, VALUES_BYTES // (POINTS * pitch * np.dtype(np.int16).itemsize)), 1)
    share = -(-tiles // max(equal_blocks(tiles, most, threads), 1))
    return WinogradGrid(
        in_height, in_width, in_channels, y.in_first, x.in_first, out_height, out_width, filters, filters,
        -(-filters // blocking.channels), across, down, tiles, -(-share // blocking.part) * blocking.part,
        pitch,
    )  # fmt: skip


def applies(shapes: ConvolutionShapes) -> bool:
    """True for 3x3 filters on neighbouring inputs, without groups, unless pixels are computed as channels."""
    if len(shapes.rows) > 1 or len(shapes.columns) > 1 or shapes.filter[3] != shapes.input[3]:
        return False
    if pixels_side_by_side(shapes) > 1:
        return False
    return all(
        (axis.taps, axis.in_step, axis.tap_step) == (TAPS, 1, 1) for axis in (*shapes.rows, *shapes.columns)
    )


def pays(isa: str, shapes: ConvolutionShapes) -> bool:
    """Whether there is a micro-kernel for int16, and the transforms cost less than the products they save."""
    if isa not in OF_PAIRS:
        return False
    batches, height, width, filters = shapes.output
    channels = shapes.filter[3]
    plain, pairs = microkernel_for(isa, filters, width).blocking, OF_PAIRS[isa].blocking
    vectors = -(-filters // OUTPUT_LANES)
    pixel = TAPS * TAPS * _products(channels, filters, plain) + PIXEL_COST * vectors
    tiles = batches * -(-height // TILE) * -(-width // TILE)
    multiplied = max(-(-tiles // pairs.part) * pairs.part, pairs.pixels)
    transforms = INPUT_COST * -(-channels // INPUT_LANES) + OUTPUT_COST * vectors
    cost = multiplied * POINTS * _products(channels, filters, pairs) + tiles * transforms
    return SAVED_AT_LEAST * cost < batches * height * width * pixel


def _products(channels: int, filters: int, blocking: Blocking) -> int:
    """Multiplications of vectors of OUTPUT_LANES channels that one tap of one pixel takes."""
    blocks = -(-filters // blocking.channels)
    return -(-channels // blocking.depth) * blocks * blocking.channels // OUTPUT_LANES
