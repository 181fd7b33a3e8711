"""DEPTHWISE_CONV_2D: every channel has filters of its own, so the loops run along the channels.

Where the instruction set multiplies four bytes at a time, a 3x3 filter takes three instructions per
16 channels: its rows are the bytes of a word. Words of the usual 3x3 filters are made in registers
(``depthwise.row_block``), those of all others in a patch (``depthwise.word_patch``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from karat24.refimpl.contract import Border, Kernel, Target, Values
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.kernels.convolution.base import AccumulatingKernel
from karat24.refimpl.kernels.convolution.conv_2d import paddings_before
from karat24.refimpl.kernels.convolution.dense import centred_filter, prepare_dense
from karat24.refimpl.kernels.convolution.patches import (
    ByteToElement,
    PatchSource,
    byte_to_element,
    fill_patch,
)
from karat24.refimpl.kernels.convolution.pixels_as_channels import ConvolutionShapes
from karat24.refimpl.kernels.convolution.tiling import (
    MAX_ROWS,
    ROWS_BYTES,
    convolution_sampling,
    equal_blocks,
    patch_rows,
    steps_of,
    tap_starts,
    tile_size,
)
from karat24.refimpl.kernels.depthwise.row_block import STRIDES, TAPS, multiply_columns
from karat24.refimpl.kernels.depthwise.word_patch import WordSource, fill_words, pack_neighbours
from karat24.refimpl.kernels.jit.callee import call_by_address
from karat24.refimpl.kernels.jit.no_refcount import no_refcount_once, task_loop
from karat24.refimpl.kernels.jit.operands import flat_accumulator, read_only_bytes, writable_bytes
from karat24.refimpl.kernels.jit.scratch import allocate, piece, piece_size, release
from karat24.refimpl.kernels.microkernel.blocking import Blocking
from karat24.refimpl.kernels.microkernel.microkernel import (
    DEPTHWISE_CHANNELS,
    DEPTHWISE_PIXELS,
    Microkernel,
    microkernel_for,
    multiply_channels,
)
from karat24.refimpl.kernels.microkernel.operands import ByteColumns, ChannelWeights, PixelTaps, Sums
from karat24.refimpl.kernels.microkernel.vector_blocks import WORD_BYTES
from karat24.refimpl.kernels.rounding.requantize import Requantization, prepare_epilogue, requantization
from karat24.refimpl.kernels.threads.task_kernel import Tasks
from karat24.refimpl.kernels.threads.thread_count import threads_for
from karat24.refimpl.profiles.rules import Rule

PRODUCT_WORK, COLUMN_WORK = 8, 4
"""Time of a product of a depthwise filter, in products of a dense convolution; the second by columns."""


class DepthwiseGeometry(NamedTuple):
    """Sizes and steps the compiled loop needs; one compiled function serves every shape."""

    batches: int
    """Images."""
    out_height: int
    """Output rows of an image."""
    out_width: int
    """Output pixels of a row."""
    in_y: int
    """Input row of output row 0's first tap; negative in the border."""
    stride_y: int
    """Input rows from an output row to the next."""
    in_x: int
    """Input column of output column 0's first tap; negative in the border."""
    tile: int
    """Pixels of an output row that a task computes at most."""
    rows: int
    """Output rows of a task at most; more than one only where a tile is a whole row."""
    row_blocks: int
    """Parts that the rows of an image are divided into, one per task."""
    pixel_step: int
    """Columns of the patch from an output pixel to the next."""
    tasks: int
    """Number of tasks."""
    per_word: int
    """Products the instruction set adds up in one 32-bit word: 1, 2 or 4."""
    by_columns: bool
    """The patch holds the input of all rows of a task, and words are made in registers."""
    neighbour: int
    """Elements of the patch between the values of a word, where filters have a single row; else 0."""


@dataclass(frozen=True)
class DepthwiseConvolution(AccumulatingKernel):
    """A prepared DEPTHWISE_CONV_2D.

    ``offsets`` int64 [tap]: where a pixel's channels lie in the patch, tap by tap; taps that share a
    word count as one. ``weights`` int32 [tap, lane], words like those of the patch; ``folded`` int32
    [lane]: bias less what the patch's zero adds. Lanes are the output channels, padded with zeros to
    whole blocks.
    """

    microkernel: Microkernel
    geometry: DepthwiseGeometry
    reading: PatchSource
    offsets: NDArray[np.int64]
    borders: NDArray[np.uint8]
    conversion: ByteToElement
    weights: NDArray[np.int32]
    folded: NDArray[np.int32]
    work: int

    def reading_inside(self, border: Border) -> DepthwiseConvolution | None:
        """This kernel on the image inside ``border`` in place of the padded one; None for another image."""
        g, r = self.geometry, self.reading
        if (r.in_height, r.in_width, r.in_channels) != border.outer:
            return None
        geometry = g._replace(in_y=g.in_y - border.top, in_x=g.in_x - border.left)
        reading = r._replace(in_height=border.inner[0], in_width=border.inner[1])
        return replace(self, geometry=geometry, reading=reading)

    @property
    def function(self) -> Any:
        """The compiled loop."""
        return depthwise_tasks

    def tasks(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> Tasks:
        """The tasks on these arrays, and on ``accumulator`` unless it is None."""
        data = inputs[0]
        assert data is not None
        layer = DepthwiseLayer(
            self.microkernel.blocking, np.empty(0, self.microkernel.element), self.borders, self.conversion,
            self.geometry, self.reading, self.offsets, self.weights, self.folded,
            requantization(self.epilogue),
        )  # fmt: skip
        places = writable_bytes(outputs[0]), flat_accumulator(accumulator)
        return Tasks((layer, read_only_bytes(data), *places), self.geometry.tasks, self.work)


def prepare_depthwise(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """DEPTHWISE_CONV_2D: input NHWC, filter 1HWC with C = in_channels * multiplier, optional bias."""
    return prepare_padded_depthwise(view, rule, target, paddings_before(view, view.input(1).shape[1:3]))


def prepare_padded_depthwise(
    view: LayerView, rule: Rule, target: Target, before: tuple[int, int]
) -> AccumulatingKernel:
    """DEPTHWISE_CONV_2D whose first window begins ``before`` rows above and columns left of the image."""
    data, filters, bias = view.input(0), view.input(1), view.optional_input(2)
    _, in_height, in_width, in_channels = data.shape
    _, taps_y, taps_x, channels = filters.shape
    batches, out_height, out_width, _ = view.output().shape
    strides = view.integer("stride_h"), view.integer("stride_w")
    dilations = view.integer("dilation_h_factor", 1), view.integer("dilation_w_factor", 1)
    (y,) = convolution_sampling(out_height, taps_y, strides[0], dilations[0], before[0])
    (x,) = convolution_sampling(out_width, taps_x, strides[1], dilations[1], before[1])
    if in_width == out_width == taps_x == 1 and before[1] == 0:
        # A column lies in memory like a row, and tiles are cut along rows.
        (in_height, in_width), (out_height, out_width) = (1, in_height), (1, out_height)
        (taps_y, taps_x), (y, x) = (1, taps_y), (x, y)

    if in_channels == 1:  # every filter reads the one channel: an ordinary convolution
        shapes = ConvolutionShapes(
            (batches, in_height, in_width, 1), (batches, out_height, out_width, channels),
            (channels, taps_y, taps_x, 1), (y,), (x,),
        )  # fmt: skip
        return prepare_dense(view, rule, target, shapes, (0, 1, 2), channels_last=True)

    kernel = microkernel_for(target.isa, 1)
    per_word = kernel.values_per_word
    groups, taps = -(-taps_y // per_word), centred_filter(filters).reshape(taps_y, taps_x, channels)
    tile = tile_size(out_width, WORD_BYTES * (groups + 1) * channels, DEPTHWISE_PIXELS)
    conversion = byte_to_element(data, kernel.element)
    whole_words = x._replace(filter_taps=tuple(range(-(-taps_x // per_word) * per_word)))
    in_a_row = taps_y == 1 < taps_x and not whole_words.layout(tile).gathered
    if in_a_row:  # a word holds taps of one row; with other filters it holds taps of one column
        taps, x = np.pad(taps, ((0, 0), (0, whole_words.taps - taps_x), (0, 0))), whole_words
    layout = x.layout(tile)
    parts = kernel.split(taps)
    by_columns = (
        (taps_y, taps_x, y.tap_step, x.tap_step) == (TAPS, TAPS, 1, 1)
        and x.in_step in STRIDES
        and len(parts) == 1
        and channels == in_channels
    )
    outputs = batches * out_height * out_width * channels
    work = steps_of((COLUMN_WORK if by_columns else PRODUCT_WORK) * outputs * taps_y * taps_x, outputs)
    tiles = -(-out_width // tile)
    threads, rows = threads_for(work, target.threads), 1
    if tiles == 1 and not (by_columns and y.in_step > TAPS):  # else a patch would hold rows that are not read
        enough = -(-batches * out_height // threads)
        row_bytes = WORD_BYTES * max(out_width * channels, 1)
        rows = max(min(MAX_ROWS, ROWS_BYTES // row_bytes, enough), 1)
    row_blocks = equal_blocks(out_height, rows, threads)
    rows = max(-(-out_height // max(row_blocks, 1)), 1)
    geometry = DepthwiseGeometry(
        batches, out_height, out_width, y.in_first, y.in_step, x.in_first, tile, rows, row_blocks,
        layout.pixel_step, batches * row_blocks * tiles, per_word, by_columns,
        layout.tap_step * channels if in_a_row else 0,
    )  # fmt: skip
    reading = PatchSource(
        in_height, in_width, in_channels, channels // in_channels, y.tap_step,
        patch_rows((y,), rows) if by_columns else taps_y,
        x.in_step, x.tap_step, x.taps, layout.columns, layout.gathered,
    )  # fmt: skip
    starts = tap_starts(groups, x.taps, layout, layout.columns, channels)
    if in_a_row:
        starts, parts = starts[::per_word], [part.transpose(1, 0, 2) for part in parts]
    borders = np.full(layout.columns * in_channels, data.zero_point & 0xFF, np.uint8)
    return DepthwiseConvolution(
        prepare_epilogue(view, rule, data, filters, view.output()),
        kernel, geometry, reading, np.array(starts * len(parts), np.int64), read_only_bytes(borders),
        conversion, np.concatenate([_words(part, kernel, per_word) for part in parts]),
        _fold(taps, None if bias is None else bias.data, conversion.border), work,
    )  # fmt: skip


def _words(taps: NDArray[np.int16], kernel: Microkernel, per_word: int) -> NDArray[np.int32]:
    """Taps [y, x, channel] as words int32 [y / per_word * x, lane]: rows of a word, lowest first."""
    height, width, channels = taps.shape
    padded = np.pad(taps, ((0, -height % per_word), (0, 0), (0, -channels % DEPTHWISE_CHANNELS)))
    split = padded.astype(kernel.weight).reshape(-1, per_word, width, padded.shape[2])
    together = np.ascontiguousarray(split.transpose(0, 2, 3, 1))
    return (
        together.astype(together.dtype.newbyteorder("<"))
        .view("<i4")
        .astype(np.int32)
        .reshape(-1, padded.shape[2])
    )


def _fold(taps: NDArray[np.int16], bias: Array | None, zero: int) -> NDArray[np.int32]:
    """``bias - zero * sum(filter)`` per lane, wrapped to 32 bits; ``zero`` stands for 0 in the patch."""
    folded = -zero * taps.sum(axis=(0, 1), dtype=np.int64)
    if bias is not None:
        folded = folded + bias.astype(np.int64)
    return np.pad(folded.astype(np.int32), (0, -taps.shape[2] % DEPTHWISE_CHANNELS))


class DepthwiseLayer(NamedTuple):
    """What the compiled loop knows of a layer besides its arrays."""

    blocking: Blocking
    """Chooses the micro-kernel."""
    empty_patch: Array
    """An empty array of the patch's element type."""
    borders: Array
    """A row of the patch outside the image: bytes, the input's zero point."""
    conversion: ByteToElement
    """From an input byte to an element of the patch."""
    geometry: DepthwiseGeometry
    """Sizes and steps."""
    reading: PatchSource
    """The part of the input that a tile reads."""
    offsets: Array
    """int64 [tap]: words from a pixel's first word of the patch to each of its taps."""
    weights: Array
    """int32 [tap, lane]: words like those of the patch."""
    folded: Array
    """int32 [lane]: bias less what the zero point adds, where sums begin."""
    requantization: Requantization
    """From accumulators to bytes."""


class DepthwiseMemory(NamedTuple):
    """Memory for one task at a time."""

    patch: Array
    """The input that a tile reads, in elements; empty where words are read from the image."""
    words: Array
    """int32: the taps of each column in words."""
    acc: Array
    """int32 [pixel, lane]."""


@no_refcount_once
def _depthwise_tile(
    layer: DepthwiseLayer, memory: DepthwiseMemory, task: int, image: Array, out: Array, acc_out: Array
) -> None:
    """One task: a tile of one output row, or a few whole rows, which are requantized together."""
    blocking, g, reading, conversion = layer.blocking, layer.geometry, layer.reading, layer.conversion
    offsets, weights, folded = layer.offsets, layer.weights, layer.folded
    patch, words, acc = memory.patch, memory.words, memory.acc
    tiles = (g.out_width + g.tile - 1) // g.tile
    rest, tile_index = divmod(task, tiles)
    batch, row_block = divmod(rest, g.row_blocks)
    first_row, first_column = row_block * g.out_height // g.row_blocks, tile_index * g.tile
    rows = (row_block + 1) * g.out_height // g.row_blocks - first_row
    row_pixels = min(g.tile, g.out_width - first_column)
    channels, lanes = reading.in_channels * reading.copies, folded.size

    in_x = g.in_x + first_column * reading.in_x_step
    stride = g.pixel_step * channels
    words_address, acc_address = words.ctypes.data, acc.ctypes.data
    offsets_address, weights_address = offsets.ctypes.data, weights.ctypes.data
    folded_address = folded.ctypes.data
    in_y = g.in_y + first_row * g.stride_y
    if g.by_columns:
        fill_patch(image, conversion, reading, batch, in_y, in_x, row_pixels, patch)
    column_bytes = patch.itemsize * channels
    row_bytes = reading.patch_columns * column_bytes
    for row in range(rows):
        if g.by_columns:
            row_address = patch.ctypes.data + row * g.stride_y * row_bytes
            row_sums = acc_address + 4 * row * row_pixels * lanes
            for lane in range(0, lanes, DEPTHWISE_CHANNELS):
                columns = ByteColumns(row_address + patch.itemsize * lane, row_bytes, column_bytes)
                factors = ChannelWeights(weights_address + 4 * lane, lanes)
                sums = Sums(folded_address + 4 * lane, row_sums + 4 * lane, lanes)
                multiply_columns(blocking, reading.in_x_step, row_pixels, columns, factors, sums)
            continue
        row_y = in_y + row * g.stride_y
        if g.neighbour:
            fill_patch(image, conversion, reading, batch, row_y, in_x, row_pixels, patch)
            pack_neighbours(patch, g.neighbour, row_bytes // patch.itemsize, words)
        else:
            source = WordSource(image, layer.borders, conversion, g.per_word, reading, batch, row_y)
            fill_words(source, in_x, row_pixels, words)
        # The last block of pixels may go beyond the row: what it writes there, the next row overwrites.
        for pixel in range(0, row_pixels, DEPTHWISE_PIXELS):
            pixel_sums = acc_address + 4 * (row * row_pixels + pixel) * lanes
            for lane in range(0, lanes, DEPTHWISE_CHANNELS):
                first = words_address + 4 * (pixel * stride + lane)
                taps = PixelTaps(first, stride, offsets_address, offsets.size)
                factors = ChannelWeights(weights_address + 4 * lane, lanes)
                sums = Sums(folded_address + 4 * lane, pixel_sums + 4 * lane, lanes)
                multiply_channels(blocking, taps, factors, sums)
    pixels = rows * row_pixels
    at = ((batch * g.out_height + first_row) * g.out_width + first_column) * channels
    call_by_address(layer.requantization.function, (
        layer.requantization.epilogue.ctypes.data, acc_address, lanes, pixels, 0, channels,
        out.ctypes.data, at, channels, acc_out.ctypes.data if acc_out.size else 0,
    ))  # fmt: skip


@task_loop
def depthwise_tasks(
    layer: DepthwiseLayer, image: Array, out: Array, acc_out: Array, begin: int, end: int
) -> None:
    """Runs tiles ``begin`` … ``end - 1`` on this thread. Sums wrap at 32 bits.

    ``image`` and ``out`` are bytes, NHWC flat; ``acc_out`` int32 like ``out``, or empty.
    """
    g, reading, empty_patch = layer.geometry, layer.reading, layer.empty_patch
    # The last block of channels reads past its pixel; for the last pixel, past the patch.
    row = reading.patch_columns * reading.in_channels * reading.copies
    values = reading.taps_y * row + DEPTHWISE_CHANNELS
    word_rows = (reading.taps_y + g.per_word - 1) // g.per_word
    if g.by_columns:
        word_rows = 0
    elif g.neighbour == 0:
        values = 0
    words_count = word_rows * row + DEPTHWISE_CHANNELS
    pixels, lanes = g.rows * g.tile + DEPTHWISE_PIXELS - 1, layer.folded.size
    of_patch, of_words = piece_size(values, empty_patch.itemsize), piece_size(words_count, 4)
    memory = allocate(of_patch + of_words + piece_size(pixels * lanes, 4))
    patch = piece(memory, 0, values, empty_patch.dtype)
    words = piece(memory, of_patch, words_count, np.int32)
    acc = piece(memory, of_patch + of_words, pixels * lanes, np.int32).reshape(pixels, lanes)
    for task in range(begin, end):
        _depthwise_tile(layer, DepthwiseMemory(patch, words, acc), task, image, out, acc_out)
    release(memory)
