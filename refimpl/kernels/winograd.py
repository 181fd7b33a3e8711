"""3x3 convolutions by Winograd's transforms, exactly: a quarter of the products, of int16.

A task takes neighbouring tiles of 4x4 outputs (``refimpl.kernels.winograd_transforms``): their inputs are
copied to a patch, transformed, multiplied with the filters point by point, and a row of tiles at a time the
sums are transformed back and requantized as any convolution's are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from refimpl.contract import Target, Values
from refimpl.graph import Array, LayerView
from refimpl.kernels.accumulating import Accumulating
from refimpl.kernels.convolution import centred_filter
from refimpl.kernels.inner_loop import inner_loop
from refimpl.kernels.microkernel import (
    ALIGNMENT,
    OF_PAIRS,
    Blocking,
    multiply_block,
    pixels_at_once,
)
from refimpl.kernels.neighbours import Shapes
from refimpl.kernels.packed_call import TaskLoop
from refimpl.kernels.padding import Border
from refimpl.kernels.patches import (
    CACHE_LINE,
    Reading,
    Widening,
    as_bytes,
    fill_patch,
    flat_accumulator,
    prefetch,
    widening_for,
    writable_bytes,
)
from refimpl.kernels.pixels import whole_pixels
from refimpl.kernels.requantize import Epilogue, prepare_epilogue, requantize_pixels
from refimpl.kernels.stages import Stage
from refimpl.kernels.threads import threads_for
from refimpl.kernels.tiling import steps_of
from refimpl.kernels.winograd_grid import PRODUCTS_SAVED, TileGrid, applies, pays, plan_grid
from refimpl.kernels.winograd_transforms import (
    INPUT_LANES,
    LARGEST_INPUT,
    ONE_FACTOR,
    ONE_POINT,
    OUTPUT_LANES,
    POINTS,
    SIDE,
    TAPS,
    TILE,
    transform_input,
    transform_output,
    transformed_filter,
)
from refimpl.profiles.rules import Rule

BOUND = 1 << 25
"""Results below this size come out exactly."""


@dataclass(frozen=True)
class WinogradConvolution(Accumulating):
    """A prepared CONV_2D.

    ``weights`` int16: the filters at every point, as the micro-kernel reads them. ``initial`` int32
    [block, 2, lane]: zeros, and what makes up for the input's zero point and adds the bias.
    ``apart_outputs``: as for ``refimpl.kernels.convolution.DenseConvolution``.
    """

    blocking: Blocking
    grid: TileGrid
    widening: Widening
    weights: Array
    initial: NDArray[np.int32]
    work: int
    apart_outputs: bool

    def behind(self, border: Border) -> WinogradConvolution | None:
        """The same, reading the image inside ``border`` in place of the padded one."""
        g = self.grid
        if (g.in_height, g.in_width, g.in_channels) != border.outer:
            return None
        height, width, _ = border.inner
        inside = g._replace(
            in_height=height, in_width=width, in_y=g.in_y - border.top, in_x=g.in_x - border.left
        )
        return replace(self, grid=inside)

    def stage(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> Stage:
        """The layer on these arrays, and on ``accumulator`` unless it is None."""
        data, out = inputs[0], whole_pixels(outputs[0])
        assert data is not None
        grid, epilogue = self.grid, self.epilogue
        if out is not outputs[0]:
            assert self.apart_outputs
            assert accumulator is None
            grid = grid._replace(out_pitch=out.shape[-1])
            epilogue = epilogue._replace(flat_body=out.size)
        arguments = (
            self.blocking, as_bytes(data), self.widening, grid, self.weights, self.initial, epilogue,
            writable_bytes(out), flat_accumulator(accumulator),
        )  # fmt: skip
        return Stage(self.loop, arguments, grid.tasks, self.work)


def prepare_winograd(
    view: LayerView, rule: Rule, target: Target, shapes: Shapes
) -> WinogradConvolution | None:
    """The kernel of a CONV_2D of these shapes; None where it would not be exact, or not be faster."""
    if not (applies(shapes) and pays(target.isa, shapes)):
        return None
    data, bias = view.input(0), view.optional_input(2)
    filters, widening = centred_filter(view.input(1)), widening_for(data, np.int8)
    constants = -widening.border * filters.sum(axis=(1, 2, 3), dtype=np.int64)
    if bias is not None and bias.data is not None:
        constants = constants + bias.data
    largest = np.abs(constants) + LARGEST_INPUT * np.abs(filters).sum(axis=(1, 2, 3), dtype=np.int64)
    at_points = transformed_filter(filters)
    if largest.max() >= BOUND or at_points is None:
        return None
    kernel = OF_PAIRS[target.isa]
    outputs = math.prod(shapes.output)
    work = steps_of(outputs * TAPS * TAPS * shapes.filter[3] // PRODUCTS_SAVED, outputs)
    grid = plan_grid(shapes, kernel.blocking, threads_for(work, target.threads))
    initial = np.zeros((grid.blocks, 2, kernel.blocking.channels), np.int32)
    lanes = np.zeros(grid.blocks * kernel.blocking.channels, np.int64)
    lanes[: grid.filters] = ONE_FACTOR * constants
    initial[:, 1] = lanes.reshape(grid.blocks, -1).astype(np.int32)
    epilogue = prepare_epilogue(view, rule, data, view.input(1), view.output())
    return WinogradConvolution(
        TaskLoop(winograd_tasks), epilogue, kernel.blocking, grid, widening, kernel.pack(at_points), initial,
        work, epilogue.flat_body >= outputs,
    )  # fmt: skip


@inner_loop
def _transform_inputs(
    image: Array, widening: Widening, g: TileGrid, first: int, count: int, patch: Array, values: Array
) -> None:
    """Tiles ``first`` … ``first + count - 1`` of the input at every point, [tile, point, channel].

    Those whose values lie in the image as the transform reads them need no patch.
    """
    as_it_is = widening.flip == 0 and g.in_channels % INPUT_LANES == 0
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
            reading = Reading(g.in_height, g.in_width, g.in_channels, 1, 1, SIDE, 1, 1, TAPS, columns, 0)
            fill_patch(image, widening, reading, batch, in_y, in_x, TILE * tiles, patch)
        target = values.ctypes.data + values.itemsize * done * POINTS * g.pitch
        for channel in range(0, g.in_channels, INPUT_LANES):
            transform_input(
                source + channel, pitch, g.in_channels, tiles,
                target + values.itemsize * channel, values.itemsize * g.pitch,
            )  # fmt: skip
        done += tiles


@inner_loop
def _fetch(image: Array, g: TileGrid, first: int, point: int) -> None:
    """One of POINTS pieces of what the tiles from ``first`` on read."""
    row, column = divmod(first, g.across)
    batch, down = divmod(row, g.down)
    row_of_tile, piece = divmod(point, SIDE)
    y, x = g.in_y + TILE * down + row_of_tile, max(g.in_x + TILE * column, 0)
    if 0 <= y < g.in_height:
        at = image.ctypes.data + ((batch * g.in_height + y) * g.in_width + x) * g.in_channels
        size = min(TILE * g.share + TAPS - 1, g.in_width - x) * g.in_channels
        for offset in range(piece * size // SIDE, (piece + 1) * size // SIDE, CACHE_LINE):
            prefetch(at + offset)


@inner_loop
def _multiply_points(
    blocking: Blocking,
    g: TileGrid,
    block: int,
    count: int,
    image: Array,
    ahead: int,
    values: Array,
    no_offset: Array,
    weights: Array,
    initial: Array,
    sums: Array,
) -> None:
    """Sums over channels at every point, [tile, point, filter of the block].

    Meanwhile what the task of tile ``ahead`` reads is brought to the cache, unless that is -1.
    """
    width, steps = blocking.channels, (g.in_channels + blocking.depth - 1) // blocking.depth
    panel = steps * blocking.depth * width
    for point in range(POINTS):
        if ahead >= 0:
            _fetch(image, g, ahead, point)
        weights_at = weights.ctypes.data + weights.itemsize * (block * POINTS + point) * panel
        initial_at = initial.ctypes.data + 4 * width * (2 * block + (point == ONE_POINT))
        tile = 0
        while tile < count:
            size = pixels_at_once(blocking, count - tile)
            at = tile * POINTS + point
            multiply_block(
                blocking, size, values.ctypes.data + values.itemsize * at * g.pitch, POINTS * g.pitch,
                no_offset.ctypes.data, 1, steps, weights_at, initial_at,
                sums.ctypes.data + 4 * at * width, POINTS * width,
            )  # fmt: skip
            tile += size


@inner_loop
def _finish_outputs(
    blocking: Blocking,
    g: TileGrid,
    block: int,
    first: int,
    count: int,
    sums: Array,
    epilogue: Epilogue,
    acc: Array,
    out: Array,
    acc_out: Array,
) -> None:
    """Transforms a block's sums back and requantizes them."""
    width = blocking.channels
    done = 0
    while done < count:
        row, column = divmod(first + done, g.across)
        batch, down = divmod(row, g.down)
        tiles = min(g.across - column, count - done)
        columns = TILE * tiles
        pixels, rows = min(columns, g.out_width - TILE * column), min(TILE, g.out_height - TILE * down)
        out_row = batch * g.out_height + TILE * down
        for channel in range(block * width, min((block + 1) * width, g.filters), OUTPUT_LANES):
            transform_output(
                sums.ctypes.data + 4 * (done * POINTS * width + channel - block * width), 4 * width, tiles,
                acc.ctypes.data, 4 * columns * OUTPUT_LANES, 4 * OUTPUT_LANES,
            )  # fmt: skip
            filters = min(OUTPUT_LANES, g.filters - channel)
            for y in range(rows):
                start = y * columns * OUTPUT_LANES
                results = acc[start : start + pixels * OUTPUT_LANES].reshape(pixels, OUTPUT_LANES)
                at = ((out_row + y) * g.out_width + TILE * column) * g.out_pitch + channel
                requantize_pixels(results, epilogue, channel, filters, out, at, g.out_pitch)
                if acc_out.size:
                    for pixel in range(pixels):
                        for k in range(filters):
                            acc_out[at + pixel * g.out_pitch + k] = results[pixel, k]
        done += tiles


@njit(cache=True, nogil=True)
def _aligned(memory: Array) -> Array:
    """The memory from the first multiple of ALIGNMENT bytes on."""
    return memory[-memory.ctypes.data % ALIGNMENT // memory.itemsize :]


@njit(cache=True, nogil=True)
def winograd_tasks(
    blocking: Blocking,
    image: Array,
    widening: Widening,
    g: TileGrid,
    weights: Array,
    initial: Array,
    epilogue: Epilogue,
    out: Array,
    acc_out: Array,
    begin: int,
    end: int,
) -> None:
    """Runs tasks ``begin`` … ``end - 1`` on this thread.

    ``image`` and ``out`` are bytes, NHWC flat; ``acc_out`` int32 like ``out``, or empty.
    """
    together = min(g.share, g.across)
    points = (g.share + blocking.pixels) * POINTS  # a block of the micro-kernel may reach beyond the tiles
    patch = np.empty(SIDE * (TILE * together + TAPS - 1) * g.in_channels + INPUT_LANES, np.int8)
    values = _aligned(np.empty(points * g.pitch + ALIGNMENT, np.int16))
    sums = _aligned(np.empty(points * blocking.channels + ALIGNMENT, np.int32))
    acc = _aligned(np.empty(TILE * TILE * together * OUTPUT_LANES + ALIGNMENT, np.int32))
    no_offset = np.zeros(1, np.int64)
    for task in range(begin, end):
        first = task * g.share
        count = min(g.share, g.tiles - first)
        _transform_inputs(image, widening, g, first, count, patch, values)
        for block in range(g.blocks):
            ahead = first + count if block == 0 and task + 1 < end else -1
            _multiply_points(
                blocking, g, block, count, image, ahead, values, no_offset, weights, initial, sums
            )
            _finish_outputs(blocking, g, block, first, count, sums, epilogue, acc, out, acc_out)
