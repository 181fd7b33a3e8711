"""Cutting a convolution into tiles, as data the compiled loops walk through.

A convolution computes its output row by row, a *tile* of neighbouring pixels at
a time. The input that a tile of a few rows needs is copied into a *patch*
``[input_row, column, in_channel]``, borders filled in, small enough to stay in
the first-level cache. One pixel of the tile then needs a few *runs* of
neighbouring patch elements: one per filter row, or one per tap when taps are
dilated or channels grouped.

A transposed convolution with stride (s_y, s_x) is s_y * s_x ordinary
convolutions, *phases*, each of which writes every s_y-th row and s_x-th column:
no two of them write the same output, so all run in parallel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from karat24.refimpl.graph import Array
from karat24.refimpl.kernels.jit.scratch import ALIGNMENT
from karat24.refimpl.kernels.microkernel.microkernel import Microkernel
from karat24.refimpl.kernels.threads.thread_count import threads_for

PATCH_BYTES = 32 * 1024
"""Patch and accumulators of one tile should fit the first-level cache."""

MIN_TILE, MAX_TILE = 48, 192
"""Pixels per tile; below the minimum, streaming the weights would cost more than the cache gains."""

PRODUCTS_PER_STEP = 32
"""Products that take as long as an elementary step of other loops."""

MAX_SPARSENESS = 4
"""A patch row that spans more columns than this per column read (large strides) holds only those read."""

MAX_ROWS, ROWS_BYTES = 8, 24 * 1024
"""Most output rows of a task, and the bytes of their patch: the rest of the cache is for the weights."""


class Sampling(NamedTuple):
    """Which input positions a phase reads along one dimension, and which outputs it writes.

    Output ``out_first + i * out_step`` (i < outputs) reads inputs
    ``in_first + i * in_step + tap * tap_step`` (tap < taps); ``filter_taps``
    are the filter's indices of those taps.
    """

    out_first: int
    out_step: int
    outputs: int
    in_first: int
    in_step: int
    tap_step: int
    filter_taps: tuple[int, ...]

    @property
    def taps(self) -> int:
        """Number of taps; a transposed convolution narrower than its stride has phases without any."""
        return len(self.filter_taps)

    def layout(self, tile: int) -> PatchLayout:
        """The layout of the columns that ``tile`` neighbouring outputs read."""
        span = (tile - 1) * self.in_step + max(self.taps - 1, 0) * self.tap_step + 1
        if span <= MAX_SPARSENESS * tile * max(self.taps, 1):
            return PatchLayout(span, self.in_step, self.tap_step, 0)
        return PatchLayout(tile * self.taps, self.taps, 1, 1)


class PatchLayout(NamedTuple):
    """Columns of a patch row, and columns from a pixel to the next and from a tap to the next.

    Not ``gathered``, a row is a copy of neighbouring input columns. Gathered, it
    holds each pixel's taps one after the other, however far apart they are.
    """

    columns: int
    pixel_step: int
    tap_step: int
    gathered: int


def padding_before(padding: str, size: int, taps: int, stride: int, dilation: int) -> int:
    """Padding before the first input: 0 ("VALID"), or what ``ceil(size / stride)`` outputs need ("SAME")."""
    if padding != "SAME":
        return 0
    outputs = -(-size // stride)
    return max((outputs - 1) * stride + (taps - 1) * dilation + 1 - size, 0) // 2


def convolution_sampling(
    outputs: int, taps: int, stride: int, dilation: int, before: int
) -> tuple[Sampling, ...]:
    """The single phase of an ordinary convolution along one dimension, with ``before`` inputs of padding."""
    return (Sampling(0, 1, outputs, -before, stride, dilation, tuple(range(taps))),)


def transposed_sampling(
    size: int, outputs: int, taps: int, stride: int, padding: str
) -> tuple[Sampling, ...]:
    """The phases of a transposed convolution along one dimension.

    Input i and tap t add to output ``i * stride + t - before``. So output o
    takes the taps t = r, r + stride, … with ``r = (o + before) % stride``, from
    inputs ``(o + before) // stride, … - 1, …``: taps in falling order make the
    inputs rise.
    """
    before = max((size - 1) * stride + taps - outputs, 0) // 2 if padding == "SAME" else 0
    phases = []
    for first in range(min(stride, outputs)):
        remainder = (first + before) % stride
        filter_taps = tuple(range(remainder, taps, stride))[::-1]
        in_first = (first + before) // stride - max(len(filter_taps) - 1, 0)
        count = -(-(outputs - first) // stride)
        phases.append(Sampling(first, stride, count, in_first, 1, 1, filter_taps))
    return tuple(phases)


class Dimensions(NamedTuple):
    """Sizes the compiled loops need; one compiled function serves every shape.

    Tasks are ordered by their place in the image, not by phase: a cache line that two phases write is then
    still in the cache.
    """

    in_height: int
    """Rows of an input image."""
    in_width: int
    """Pixels of an input row."""
    in_channels: int
    """Channels of an input pixel, bytes."""
    out_height: int
    """Rows of an output image."""
    out_width: int
    """Pixels of an output row."""
    out_pitch: int
    """Bytes from an output pixel to the next: its channels, or more as a part of a wider image."""
    groups: int
    """Groups of channels that are convolved separately."""
    group_channels: int
    """Input channels of a group."""
    group_filters: int
    """Output channels of a group."""
    group_blocks: int
    """Blocks of the micro-kernel that the output channels of a group take."""
    tile: int
    """Pixels of an output row that a task computes at most."""
    tiles: int
    """Tiles of the widest phase's rows."""
    row_blocks: int
    """Parts that the rows of a phase are divided into, one per task."""
    patch_columns: int
    """Columns of a patch row."""
    patch_size: int
    """Elements of a patch, with those the last run may read beyond it."""
    splits: int
    """Parts that a group's blocks are divided into, one per task."""
    tasks: int
    """Number of tasks."""


PHASE_FIELDS = (
    "out_y",  # output row of the phase's first row
    "out_y_step",  # output rows from one of the phase to the next
    "rows",  # output rows of the phase
    "in_y",  # input row that the first output row's first tap reads; negative in the border
    "in_y_step",  # input rows from an output row of the phase to the next
    "tap_y_step",  # input rows from a row of the patch to the next
    "taps_y",  # rows of the patch that one output row needs
    "row_step",  # rows of the patch from one output row to the next
    "out_x",  # output column of the phase's first pixel
    "out_x_step",  # output columns from one of the phase to the next
    "columns",  # output pixels of a row of the phase
    "in_x",  # input column that the first pixel's first tap reads; negative in the border
    "in_x_step",  # input columns from a pixel of the phase to the next
    "tap_x_step",  # input columns from a tap to the next
    "taps_x",  # taps along x
    "pixel_step",  # columns of the patch from a pixel to the next
    "gathered",  # 1 where the patch holds each pixel's taps one after the other
    "runs",  # runs of neighbouring elements that a pixel reads
    "steps",  # steps of the micro-kernel that a run takes
    "weights",  # index of the phase's first weight
)
"""Columns of :attr:`TilePlan.phases`."""


@dataclass(frozen=True)
class TilePlan:
    """Everything a compiled convolution needs besides weights and arithmetic.

    ``phases`` int64 [phase, PHASE_FIELDS]; ``offsets`` int64 [phase, run], where
    each run of a pixel starts in the patch; ``samplings`` the phases they came from.
    Weights in several ``parts`` have their runs one part after the other. ``work`` is in elementary steps.
    """

    dimensions: Dimensions
    phases: NDArray[np.int64]
    offsets: NDArray[np.int64]
    samplings: tuple[tuple[Sampling, Sampling], ...]
    microkernel: Microkernel
    parts: int
    work: int

    def pack(self, filters: NDArray[np.int16]) -> Array:
        """Filters OHWI (zero point removed, int16) as the phases read them, one after the other."""
        d = self.dimensions
        packed: list[Array] = []
        parts = self.microkernel.split(filters)
        for (y, x), runs in zip(self.samplings, self.phases[:, PHASE_FIELDS.index("runs")], strict=True):
            if not runs:
                continue
            taken = [part[:, y.filter_taps][:, :, x.filter_taps] for part in parts]
            for group in range(d.groups):
                of_group = slice(group * d.group_filters, (group + 1) * d.group_filters)
                split = [part[of_group].reshape(d.group_filters, runs // self.parts, -1) for part in taken]
                packed.append(self.microkernel.pack(np.concatenate(split, axis=1)))
        return _aligned(packed, self.microkernel.weight)

    def fold(self, filters: Array, bias: Array | None, zero: int) -> NDArray[np.int32]:
        """``bias - zero * sum(filter)`` per phase and block lane, wrapped to 32 bits.

        int32 [phase, group, lanes]. The kernels multiply the patch's values, of which
        ``zero`` stands for 0; this takes it out again. All sums wrap at 32 bits, as the
        runtimes' do, so the order of additions cannot matter.
        """
        d = self.dimensions
        lanes = d.group_blocks * self.microkernel.blocking.channels
        folded = np.zeros((len(self.samplings), d.groups, lanes), np.int64)
        for phase, (y, x) in enumerate(self.samplings):
            taken = filters[:, y.filter_taps][:, :, x.filter_taps].astype(np.int64)
            value = -zero * taken.sum(axis=(1, 2, 3))
            if bias is not None:
                value = value + bias.astype(np.int64)
            folded[phase, :, : d.group_filters] = value.reshape(d.groups, d.group_filters)
        return folded.astype(np.int32)


def plan_tiles(
    input_shape: Sequence[int],
    output_shape: Sequence[int],
    groups: int,
    rows: Sequence[Sampling],
    columns: Sequence[Sampling],
    microkernel: Microkernel,
    threads: int,
    parts: int = 1,
) -> TilePlan:
    """Cuts a convolution of NHWC shapes into tiles for at most ``threads`` threads.

    ``parts``: the number of parts that the micro-kernel splits the weights into.
    """
    _, block_channels, depth, part = microkernel.blocking
    batches, in_height, in_width, in_channels = input_shape
    _, out_height, out_width, out_channels = output_shape
    group_channels, group_filters = in_channels // groups, out_channels // groups
    group_blocks = -(-group_filters // block_channels)
    samplings = tuple((y, x) for y in rows for x in columns)
    widest = max((x.outputs for x in columns), default=1)
    taps_y = max((y.taps for y in rows), default=0)
    element_bytes = np.dtype(microkernel.element).itemsize
    column_bytes = element_bytes * taps_y * in_channels + 4 * group_blocks * block_channels
    taps = sum(y.outputs * y.taps for y in rows) * sum(x.outputs * x.taps for x in columns)
    products = batches * taps * group_channels * out_channels
    work = steps_of(products, batches * out_height * out_width * out_channels)
    threads = threads_for(work, threads)
    tile = tile_size(widest, column_bytes, part, threads if out_height == 1 else 1)
    patch_columns = max((x.layout(tile).columns for x in columns), default=1)

    phases, offsets, first_weight = [], [], 0
    row_tasks = batches * sum(y.outputs * -(-x.outputs // tile) for y, x in samplings)
    together = rows_together(rows, patch_columns * in_channels * element_bytes)
    if threads > 1:
        together = max(min(together, row_tasks // threads), 1)
    splits = min(group_blocks, -(-threads // row_tasks)) if row_tasks else 1
    for y, x in samplings:
        layout = x.layout(tile)
        starts, length = _runs(y.taps, x.taps, layout, patch_columns, in_channels, groups)
        starts, steps = starts * parts, -(-length // depth)
        phases.append(
            (y.out_first, y.out_step, y.outputs, y.in_first, y.in_step, *_steps_of_rows(y),
             x.out_first, x.out_step, x.outputs, x.in_first, x.in_step, x.tap_step, x.taps,
             layout.pixel_step, layout.gathered, len(starts), steps, first_weight)
        )  # fmt: skip
        offsets.append(starts)
        weights_per_block = len(starts) * steps * depth * block_channels
        first_weight += groups * group_blocks * weights_per_block
    table = np.zeros((len(samplings), max((len(starts) for starts in offsets), default=0) or 1), np.int64)
    for row, starts in zip(table, offsets, strict=True):
        row[: len(starts)] = starts
    longest = max((y.outputs for y in rows), default=0)
    row_blocks = equal_blocks(longest, together, threads)
    together = max(-(-longest // max(row_blocks, 1)), 1)
    tiles = -(-widest // tile)
    dimensions = Dimensions(
        in_height, in_width, in_channels, out_height, out_width, out_channels,
        groups, group_channels, group_filters, group_blocks, tile, tiles, row_blocks,
        patch_columns, patch_rows(rows, together) * patch_columns * in_channels + depth, splits,
        batches * row_blocks * len(samplings) * tiles * splits,
    )  # fmt: skip
    fields = np.array(phases, np.int64).reshape(len(phases), len(PHASE_FIELDS))
    return TilePlan(dimensions, fields, table, samplings, microkernel, parts, work)


def _aligned(pieces: Sequence[Array], dtype: type[Any]) -> Array:
    """The pieces one after the other, the first at a multiple of ``ALIGNMENT`` bytes."""
    size = sum(piece.size for piece in pieces)
    whole = np.zeros(size * np.dtype(dtype).itemsize + ALIGNMENT, np.uint8)
    start = -whole.ctypes.data % ALIGNMENT
    aligned: Array = whole[start : start + size * np.dtype(dtype).itemsize].view(dtype)
    if pieces:
        np.concatenate(pieces, out=aligned)
    return aligned


def steps_of(products: int, outputs: int) -> int:
    """The elementary steps of a layer: an output takes one besides its products."""
    return products // PRODUCTS_PER_STEP + outputs


def rows_together(phases: Sequence[Sampling], row_bytes: int) -> int:
    """Output rows of one task: the most whose patch fits the cache; 1 if the patch would have unread rows."""
    if any(y.taps != 1 and (y.tap_step != 1 or y.in_step >= y.taps) for y in phases):
        return 1
    fitting = (n for n in range(MAX_ROWS, 1, -1) if patch_rows(phases, n) * row_bytes <= ROWS_BYTES)
    return next(fitting, 1)


def equal_blocks(count: int, most: int, threads: int) -> int:
    """The number of equal blocks of at most ``most``: a multiple of ``threads`` if ``count`` is large enough.

    More blocks make a small layer slower: threads draw tasks more often, and from other threads' partitions,
    whose results are in another cache.
    """
    blocks = -(-count // most)
    return min(-(-blocks // threads) * threads, count)


def patch_rows(phases: Sequence[Sampling], together: int) -> int:
    """Rows of a patch for ``together`` neighbouring output rows."""
    return max((y.taps + (together - 1) * _steps_of_rows(y)[-1] for y in phases), default=0)


def _steps_of_rows(y: Sampling) -> tuple[int, int, int]:
    """``tap_y_step``, ``taps_y`` and ``row_step``: rows of a single tap follow one another in a patch."""
    if y.taps == 1:
        return y.in_step, 1, 1
    return y.tap_step, y.taps, y.in_step


def tile_size(pixels: int, column_bytes: int, multiple: int, threads: int = 1) -> int:
    """Pixels per tile: at most what the cache holds, equal for all tiles, a multiple of the block.

    ``threads``: the number of threads that divide a row.
    """
    most = min(max(PATCH_BYTES // max(column_bytes, 1), MIN_TILE), MAX_TILE)
    even = -(-max(pixels, 1) // equal_blocks(max(pixels, 1), most, threads))
    return -(-even // multiple) * multiple


def _runs(
    taps_y: int, taps_x: int, layout: PatchLayout, patch_columns: int, channels: int, groups: int
) -> tuple[list[int], int]:
    """The places in the patch where a pixel's runs start, and their common length."""
    if not taps_y or not taps_x:
        return [], 0
    if groups == 1 and (layout.tap_step == 1 or taps_x == 1):
        return [tap * patch_columns * channels for tap in range(taps_y)], taps_x * channels
    return tap_starts(taps_y, taps_x, layout, patch_columns, channels), channels // groups


def tap_starts(taps_y: int, taps_x: int, layout: PatchLayout, patch_columns: int, channels: int) -> list[int]:
    """The place of each tap of the first pixel in a patch [taps_y, patch_columns, channels]."""
    return [
        (tap_y * patch_columns + tap_x * layout.tap_step) * channels
        for tap_y in range(taps_y)
        for tap_x in range(taps_x)
    ]
