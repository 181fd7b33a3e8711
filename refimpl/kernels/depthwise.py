"""DEPTHWISE_CONV_2D: every channel has filters of its own, so the loops run along the channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from refimpl.contract import Kernel, Target, Values
from refimpl.graph import Array, LayerView
from refimpl.kernels.convolution import filter_zero_point
from refimpl.kernels.microkernel import CHANNELS, PIXELS, multiply_channels
from refimpl.kernels.patches import (
    Widening,
    as_bytes,
    flat_accumulator,
    widen_row,
    widening_for,
    writable_bytes,
)
from refimpl.kernels.requantize import Epilogue, prepare_epilogue, requantize_pixels
from refimpl.kernels.tiling import Sampling, convolution_sampling, tile_size
from refimpl.profiles.rules import Rule


class DepthwiseGeometry(NamedTuple):
    """Sizes and steps the compiled loop needs; one compiled function serves every shape."""

    batches: int
    in_height: int
    in_width: int
    in_channels: int
    out_height: int
    out_width: int
    multiplier: int
    in_y: int
    stride_y: int
    dilation_y: int
    taps_y: int
    in_x: int
    stride_x: int
    tile: int
    patch_columns: int


@dataclass(frozen=True)
class PackedDepthwise:
    """``weights`` int16 [tap, lane], ``folded`` int32 [lane]: bias less the input's zero point.

    Lanes are the output channels, padded with zeros to whole blocks.
    """

    weights: NDArray[np.int16]
    folded: NDArray[np.int32]


@dataclass(frozen=True)
class DepthwiseConvolution:
    """A prepared DEPTHWISE_CONV_2D. ``offsets`` int64 [tap]: where each tap's channels start in the patch."""

    geometry: DepthwiseGeometry
    offsets: NDArray[np.int64]
    widening: Widening
    epilogue: Epilogue
    filter_zero_point: int
    threads: int
    packed: PackedDepthwise | None = None

    def pack(self, filters: Array, bias: Array | None) -> PackedDepthwise:
        """Filter [1, taps_y, taps_x, channel] and bias [channel], in the loop's order."""
        channels = filters.shape[3]
        taps = filters.reshape(-1, channels).astype(np.int16) - np.int16(self.filter_zero_point)
        padding = (0, -channels % CHANNELS)
        folded = -self.widening.border * taps.sum(axis=0, dtype=np.int64)
        if bias is not None:
            folded = folded + bias.astype(np.int64)
        return PackedDepthwise(np.pad(taps, ((0, 0), padding)), np.pad(folded.astype(np.int32), padding))

    def __call__(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        """Runs the layer."""
        data, filters = inputs[0], inputs[1]
        assert data is not None
        assert filters is not None
        packed = self.packed or self.pack(filters, inputs[2] if len(inputs) > 2 else None)
        convolve_depthwise(
            as_bytes(data), self.widening, self.geometry, self.offsets, packed.weights, packed.folded,
            self.epilogue, self.threads, writable_bytes(outputs[0]), flat_accumulator(accumulator),
        )  # fmt: skip


def prepare_depthwise(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """DEPTHWISE_CONV_2D: input NHWC, filter 1HWC with C = in_channels * multiplier, optional bias."""
    data, filters, bias = view.input(0), view.input(1), view.optional_input(2)
    _, in_height, in_width, in_channels = data.shape
    _, taps_y, taps_x, channels = filters.shape
    _, out_height, out_width, _ = view.output().shape
    padding = view.text("padding")
    rows, columns = (
        convolution_sampling(size, outputs, taps, stride, dilation, padding)[0]
        for size, outputs, taps, stride, dilation in (
            (in_height, out_height, taps_y, view.integer("stride_h"), view.integer("dilation_h_factor", 1)),
            (in_width, out_width, taps_x, view.integer("stride_w"), view.integer("dilation_w_factor", 1)),
        )
    )
    tile = tile_size(out_width, (2 * taps_y * columns.in_step + 4) * channels, PIXELS)
    geometry = DepthwiseGeometry(
        data.shape[0], in_height, in_width, in_channels, out_height, out_width, channels // in_channels,
        rows.in_first, rows.in_step, rows.tap_step, taps_y,
        columns.in_first, columns.in_step, tile, columns.span(tile),
    )  # fmt: skip
    kernel = DepthwiseConvolution(
        geometry, _tap_offsets(rows, columns, geometry.patch_columns, channels), widening_for(data),
        prepare_epilogue(view, rule, data, filters, view.output()),
        filter_zero_point(filters), target.threads,
    )  # fmt: skip
    if filters.data is None or (bias is not None and bias.data is None):
        return kernel
    return replace(kernel, packed=kernel.pack(filters.data, None if bias is None else bias.data))


def _tap_offsets(rows: Sampling, columns: Sampling, patch_columns: int, channels: int) -> NDArray[np.int64]:
    starts = [
        (tap_y * patch_columns + tap_x * columns.tap_step) * channels
        for tap_y in range(rows.taps)
        for tap_x in range(columns.taps)
    ]
    return np.array(starts, np.int64)


@njit(cache=True, nogil=True)
def _repeat(source: Array, count: int, target: Array) -> None:
    for i in range(source.size):
        for copy in range(count):
            target[i * count + copy] = source[i]


@njit(cache=True, nogil=True)
def _depthwise_tile(
    image: Array,
    widening: Widening,
    g: DepthwiseGeometry,
    offsets: Array,
    weights: Array,
    folded: Array,
    epilogue: Epilogue,
    task: int,
    line: Array,
    patch: Array,
    acc: Array,
    out: Array,
    acc_out: Array,
) -> None:
    """One task: a tile of one output row."""
    tiles = (g.out_width + g.tile - 1) // g.tile
    out_row, tile_index = divmod(task, tiles)
    batch, out_y = divmod(out_row, g.out_height)
    first_column = tile_index * g.tile
    pixels = min(g.tile, g.out_width - first_column)
    channels, lanes = g.in_channels * g.multiplier, folded.size

    pitch = g.patch_columns * channels
    in_x = g.in_x + first_column * g.stride_x
    for tap in range(g.taps_y):
        in_y = g.in_y + out_y * g.stride_y + tap * g.dilation_y
        start = -1
        if 0 <= in_y < g.in_height:
            start = (batch * g.in_height + in_y) * g.in_width * g.in_channels
        target = patch[tap * pitch : (tap + 1) * pitch]
        columns = target if g.multiplier == 1 else line
        widen_row(image, widening, start, g.in_width, g.in_channels, in_x, g.patch_columns, columns)
        if g.multiplier > 1:
            _repeat(line, g.multiplier, target)

    stride = g.stride_x * channels
    for pixel in range(0, pixels, PIXELS):
        for lane in range(0, lanes, CHANNELS):
            multiply_channels(
                patch.ctypes.data + 2 * (pixel * stride + lane), stride, offsets.ctypes.data, offsets.size,
                weights.ctypes.data + 2 * lane, lanes, folded.ctypes.data + 4 * lane,
                acc.ctypes.data + 4 * (pixel * lanes + lane), lanes,
            )  # fmt: skip
    at = (out_row * g.out_width + first_column) * channels
    requantize_pixels(acc[:pixels], epilogue, 0, channels, out, at, channels)
    if acc_out.size:
        for pixel in range(pixels):
            begin = at + pixel * channels
            acc_out[begin : begin + channels] = acc[pixel, :channels]


@njit(cache=True, nogil=True, parallel=True)
def convolve_depthwise(
    image: Array,
    widening: Widening,
    geometry: DepthwiseGeometry,
    offsets: Array,
    weights: Array,
    folded: Array,
    epilogue: Epilogue,
    workers: int,
    out: Array,
    acc_out: Array,
) -> None:
    """Runs every tile, shared out in order over ``workers`` threads. Sums wrap at 32 bits."""
    g = geometry
    tasks = g.batches * g.out_height * ((g.out_width + g.tile - 1) // g.tile)
    lines = np.empty((workers, g.patch_columns * g.in_channels), np.int16)
    # The last block of channels reads past its pixel, and of the last pixel past the patch.
    channels = g.in_channels * g.multiplier
    patches = np.empty((workers, g.taps_y * g.patch_columns * channels + CHANNELS), np.int16)
    accs = np.empty((workers, g.tile, folded.size), np.int32)
    for worker in prange(workers):
        for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
            _depthwise_tile(
                image, widening, geometry, offsets, weights, folded, epilogue, task,
                lines[worker], patches[worker], accs[worker], out, acc_out,
            )  # fmt: skip
