"""The compiled loop of Winograd's convolution (``convolution.py``): tasks of neighbouring tiles."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from karat24.refimpl.contract import MaxPool2x2
from karat24.refimpl.graph import Array
from karat24.refimpl.kernels.convolution.patches import (
    CACHE_LINE,
    ByteToElement,
    PatchSource,
    fill_patch,
    prefetch,
    prefetch_to_write,
)
from karat24.refimpl.kernels.convolution.winograd.grid import WinogradGrid
from karat24.refimpl.kernels.convolution.winograd.transforms import (
    INPUT_LANES,
    ONE_POINT,
    OUTPUT_LANES,
    POINTS,
    SIDE,
    TAPS,
    TILE,
    transform_input,
    transform_output,
)
from karat24.refimpl.kernels.images.pool_block import ByteWindow, largest_of_window
from karat24.refimpl.kernels.jit.callee import Callee, call_by_address
from karat24.refimpl.kernels.jit.no_refcount import no_refcount_inside, task_loop
from karat24.refimpl.kernels.jit.scratch import allocate, piece, piece_size, release
from karat24.refimpl.kernels.microkernel.blocking import Block
from karat24.refimpl.kernels.rounding.requantize import Requantization

HALF_TILE = TILE // 2


@no_refcount_inside
def _transform_inputs(
    image: Array,
    conversion: ByteToElement,
    g: WinogradGrid,
    first: int,
    count: int,
    patch: Array,
    values: Array,
) -> None:
    """Tiles ``first`` … ``first + count - 1`` of the input at every point, [tile, point, channel].

    A tile whose values lie in the image as the transform reads them needs no patch.
    """
    as_it_is = conversion.flip == 0 and g.in_channels % INPUT_LANES == 0
    done = 0
    while done < count:
        row, column = divmod(first + done, g.across)
        batch, down = divmod(row, g.down)
        tiles = min(g.across - column, count - done)
        columns = TILE * tiles + TAPS - 1
        in_y, in_x = g.in_y + TILE * down, g.in_x + TILE * column
        rows_inside = in_y >= 0 and in_y + SIDE <= g.in_height
        if as_it_is and rows_inside and in_x >= 0 and in_x + columns <= g.in_width:
            pitch = g.in_width * g.in_channels
            source = image.ctypes.data + (batch * g.in_height + in_y) * pitch + in_x * g.in_channels
        else:
            pitch, source = columns * g.in_channels, patch.ctypes.data
            reading = PatchSource(g.in_height, g.in_width, g.in_channels, 1, 1, SIDE, 1, 1, TAPS, columns, 0)
            fill_patch(image, conversion, reading, batch, in_y, in_x, TILE * tiles, patch)
        target = values.ctypes.data + values.itemsize * done * POINTS * g.pitch
        for channel in range(0, g.in_channels, INPUT_LANES):
            transform_input(
                source + channel, pitch, g.in_channels, tiles,
                target + values.itemsize * channel, values.itemsize * g.pitch,
            )  # fmt: skip
        done += tiles


class Fetched(NamedTuple):
    """Rows of an image that a task will touch: rows ``first`` … ``end - 1`` of its tile."""

    at: int
    """Address of the tile's row 0, which may lie outside the image."""
    pitch: int
    """Bytes from a row to the next."""
    first: int
    """The tile's first row inside the image."""
    end: int
    """The row behind its last one inside the image."""
    size: int
    """Bytes of a row."""


@no_refcount_inside
def _rows_read(image: Array, g: WinogradGrid, tile: int) -> Fetched:
    """What the task of this tile reads."""
    row, column = divmod(tile, g.across)
    batch, down = divmod(row, g.down)
    y, x = g.in_y + TILE * down, max(g.in_x + TILE * column, 0)
    pitch = g.in_width * g.in_channels
    at = image.ctypes.data + (batch * g.in_height + y) * pitch + x * g.in_channels
    size = min(TILE * g.share + TAPS - 1, g.in_width - x) * g.in_channels
    return Fetched(at, pitch, max(0, -y), min(SIDE, g.in_height - y), size)


@no_refcount_inside
def _rows_written(out: Array, g: WinogradGrid, tile: int) -> Fetched:
    """What the task of this tile writes."""
    row, column = divmod(tile, g.across)
    batch, down = divmod(row, g.down)
    y, x = TILE * down, TILE * column
    pitch = g.out_width * g.out_pitch
    at = out.ctypes.data + (batch * g.out_height + y) * pitch + x * g.out_pitch
    return Fetched(
        at, pitch, 0, min(TILE, g.out_height - y), min(TILE * g.share, g.out_width - x) * g.out_pitch
    )


@no_refcount_inside
def _fetch(read: Fetched, written: Fetched, point: int) -> None:
    """Prefetches one of POINTS equal pieces of the rows read and of the rows written."""
    row, piece = point // SIDE, point % SIDE
    if read.first <= row < read.end:
        at = read.at + row * read.pitch
        for offset in range(piece * read.size // SIDE, (piece + 1) * read.size // SIDE, CACHE_LINE):
            prefetch(at + offset)
    if row < written.end:
        at = written.at + row * written.pitch
        for offset in range(piece * written.size // SIDE, (piece + 1) * written.size // SIDE, CACHE_LINE):
            prefetch_to_write(at + offset)


@no_refcount_inside
def _multiply_points(
    layer: WinogradLayer,
    memory: WinogradMemory,
    tiles: Tiles,
    block: int,
    image: Array,
    out: Array,
    ahead: int,
) -> None:
    """Sums over channels at every point, [tile, point, filter of the block].

    Meanwhile, unless ``ahead`` is -1, the caches are filled with what the task of that tile will read and
    what this one will write.
    """
    blocking, g, weights, initial = layer.blocking, layer.grid, layer.weights, layer.initial
    values, sums = memory.values, memory.sums
    width, steps = blocking.channels, (g.in_channels + blocking.depth - 1) // blocking.depth
    panel = steps * blocking.depth * width
    ahead_read, written = _rows_read(image, g, max(ahead, 0)), _rows_written(out, g, tiles.first)
    for point in range(POINTS):
        if ahead >= 0:
            _fetch(ahead_read, written, point)
        weights_at = weights.ctypes.data + weights.itemsize * (block * POINTS + point) * panel
        initial_at = initial.ctypes.data + 4 * width * (2 * block + (point == ONE_POINT))
        call_by_address(layer.multiply, (
            tiles.number, values.ctypes.data + values.itemsize * point * g.pitch, POINTS * g.pitch,
            memory.no_offset.ctypes.data, 1, steps, weights_at, initial_at,
            sums.ctypes.data + 4 * point * width, POINTS * width,
        ))  # fmt: skip


@no_refcount_inside
def _finish_outputs(
    layer: WinogradLayer, memory: WinogradMemory, tiles: Tiles, block: int, out: Array, acc_out: Array
) -> None:
    """Transforms a block's sums back and requantizes them."""
    g, width, sums, acc = layer.grid, layer.blocking.channels, memory.sums, memory.acc
    done = 0
    while done < tiles.number:
        row, column = divmod(tiles.first + done, g.across)
        batch, down = divmod(row, g.down)
        across = min(g.across - column, tiles.number - done)
        columns = TILE * across
        pixels, rows = min(columns, g.out_width - TILE * column), min(TILE, g.out_height - TILE * down)
        out_row = batch * g.out_height + TILE * down
        for channel in range(block * width, min((block + 1) * width, g.filters), OUTPUT_LANES):
            transform_output(
                sums.ctypes.data + 4 * (done * POINTS * width + channel - block * width), 4 * width, across,
                acc.ctypes.data, 4 * columns * OUTPUT_LANES, 4 * OUTPUT_LANES,
            )  # fmt: skip
            filters = min(OUTPUT_LANES, g.filters - channel)
            for y in range(rows):
                start = y * columns * OUTPUT_LANES
                at = ((out_row + y) * g.out_width + TILE * column) * g.out_pitch + channel
                call_by_address(layer.requantization.function, (
                    layer.requantization.epilogue.ctypes.data, acc.ctypes.data + 4 * start, OUTPUT_LANES,
                    pixels, channel, filters, out.ctypes.data, at, g.out_pitch,
                    acc_out.ctypes.data if acc_out.size else 0,
                ))  # fmt: skip
        done += across


@no_refcount_inside
def _pool_outputs(
    blocking: Block,
    g: WinogradGrid,
    block: int,
    first: int,
    count: int,
    out: Array,
    maxima: MaxPool2x2,
    pooled: Array,
) -> None:
    """The largest of each 2x2 outputs of a block: tiles begin at even rows and columns."""
    channel = block * blocking.channels
    filters = min(blocking.channels, g.filters - channel)
    row_bytes = g.out_width * g.out_pitch
    done = 0
    while done < count:
        row, column = divmod(first + done, g.across)
        batch, down = divmod(row, g.down)
        tiles = min(g.across - column, count - done)
        for y in range(HALF_TILE * down, min(HALF_TILE * (down + 1), maxima.height)):
            source = out.ctypes.data + (batch * g.out_height + 2 * y) * row_bytes + channel
            out_row = (batch * maxima.height + y) * maxima.width
            rows = min(2, g.out_height - 2 * y)
            for x in range(HALF_TILE * column, min(HALF_TILE * (column + tiles), maxima.width)):
                columns = min(2, g.out_width - 2 * x)
                window = ByteWindow(source + 2 * x * g.out_pitch, rows, row_bytes, columns, g.out_pitch)
                at = pooled.ctypes.data + (out_row + x) * maxima.pitch + channel
                if maxima.signed:
                    low, high = np.int8(maxima.low), np.int8(maxima.high)
                    largest_of_window(window, filters, low, high, at)
                else:
                    least, most = np.uint8(maxima.low), np.uint8(maxima.high)
                    largest_of_window(window, filters, least, most, at)
        done += tiles


class Tiles(NamedTuple):
    """Neighbouring tiles, which one task computes."""

    first: int
    """Index of the first tile."""
    number: int
    """Number of tiles."""


class WinogradMemory(NamedTuple):
    """Memory for one task at a time."""

    values: Array
    """int16 [tile, point, channel]: the transformed input."""
    sums: Array
    """int32 [tile, point, filter of a block]."""
    acc: Array
    """int32: a row of tiles' sums transformed back, OUTPUT_LANES filters."""
    no_offset: Array
    """int64 [1], zero: where the one run of a point begins."""


class WinogradLayer(NamedTuple):
    """What the compiled loop knows of a layer besides its arrays."""

    blocking: Block
    """The micro-kernel's block."""
    multiply: Callee
    """The micro-kernel on a row of tiles."""
    conversion: ByteToElement
    """From an input byte to an int8 value."""
    grid: WinogradGrid
    """Sizes of images and tiles."""
    weights: Array
    """int16: the transformed filters as the micro-kernel reads them, point by point."""
    initial: Array
    """int32 [block, 2, lane]: zeros, and what the sums of ONE_POINT begin with."""
    requantization: Requantization
    """From accumulators to bytes."""
    maxima: MaxPool2x2
    """How ``pooled`` is made of ``out``."""


@task_loop
def winograd_tasks(
    layer: WinogradLayer, image: Array, out: Array, pooled: Array, acc_out: Array, begin: int, end: int
) -> None:
    """Runs tasks ``begin`` … ``end - 1`` on this thread.

    ``image`` and ``out`` are bytes, NHWC flat; ``pooled`` is ``out`` halved, or empty; ``acc_out`` is int32
    like ``out``, or empty.
    """
    g, blocking = layer.grid, layer.blocking
    together = min(g.share, g.across)
    points = (g.share + blocking.pixels) * POINTS  # a block of the micro-kernel may reach beyond the tiles
    patch_bytes = SIDE * (TILE * together + TAPS - 1) * g.in_channels + INPUT_LANES
    results = TILE * TILE * together * OUTPUT_LANES
    of_values, of_sums = piece_size(points * g.pitch, 2), piece_size(points * blocking.channels, 4)
    of_acc, of_patch = piece_size(results, 4), piece_size(patch_bytes, 1)
    memory = allocate(of_values + of_sums + of_acc + of_patch + piece_size(1, 8))
    values = piece(memory, 0, points * g.pitch, np.int16)
    sums = piece(memory, of_values, points * blocking.channels, np.int32)
    acc = piece(memory, of_values + of_sums, results, np.int32)
    patch = piece(memory, of_values + of_sums + of_acc, patch_bytes, np.int8)
    no_offset = piece(memory, of_values + of_sums + of_acc + of_patch, 1, np.int64)
    no_offset[0] = 0
    scratch = WinogradMemory(values, sums, acc, no_offset)
    for task in range(begin, end):
        first = task * g.share
        count = min(g.share, g.tiles - first)
        tiles = Tiles(first, count)
        _transform_inputs(image, layer.conversion, g, first, count, patch, values)
        for block in range(g.blocks):
            ahead = first + count if block == 0 and task + 1 < end else -1
            _multiply_points(layer, scratch, tiles, block, image, out, ahead)
            _finish_outputs(layer, scratch, tiles, block, out, acc_out)
            if pooled.size:
                _pool_outputs(blocking, g, block, first, count, out, layer.maxima, pooled)
    release(memory)
