"""DEPTHWISE_CONV_2D: every channel has filters of its own, so the loops run along the channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from refimpl.contract import Kernel, Target, Values
from refimpl.graph import Array, LayerView
from refimpl.kernels.convolution import centred_filter
from refimpl.kernels.microkernel import CHANNELS, PIXELS, multiply_channels
from refimpl.kernels.patches import (
    Reading,
    Widening,
    as_bytes,
    fill_patch,
    flat_accumulator,
    widening_for,
    writable_bytes,
)
from refimpl.kernels.requantize import Epilogue, prepare_epilogue, requantize_pixels
from refimpl.kernels.threads import Direct
from refimpl.kernels.tiling import convolution_sampling, tap_starts, threads_for, tile_size
from refimpl.profiles.rules import Rule


class DepthwiseGeometry(NamedTuple):
    """Sizes and steps the compiled loop needs; one compiled function serves every shape."""

    batches: int
    out_height: int
    out_width: int
    in_y: int
    stride_y: int
    in_x: int
    tile: int
    pixel_step: int
    tasks: int
    threads: int


@dataclass(frozen=True)
class DepthwiseConvolution:
    """A prepared DEPTHWISE_CONV_2D.

    ``offsets`` int64 [tap]: where a pixel's channels lie in the patch, tap by tap.
    ``weights`` int16 [tap, lane], ``folded`` int32 [lane]: bias less what the
    input's zero point adds. Lanes are the output channels, padded with zeros to
    whole blocks.
    """

    geometry: DepthwiseGeometry
    reading: Reading
    offsets: NDArray[np.int64]
    widening: Widening
    weights: NDArray[np.int16]
    folded: NDArray[np.int32]
    epilogue: Epilogue
    compiled: Direct

    def __call__(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        """Runs the layer."""
        data = inputs[0]
        assert data is not None
        g = self.geometry
        constants = (
            as_bytes(data), self.widening, g, self.reading, self.offsets, self.weights, self.folded,
            self.epilogue,
        )  # fmt: skip
        results = (writable_bytes(outputs[0]), flat_accumulator(accumulator))
        if g.threads == 1:
            self.compiled(*constants, 0, g.tasks, *results)
        else:
            self.compiled(*constants, *results)


def prepare_depthwise(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """DEPTHWISE_CONV_2D: input NHWC, filter 1HWC with C = in_channels * multiplier, optional bias."""
    data, filters, bias = view.input(0), view.input(1), view.optional_input(2)
    _, in_height, in_width, in_channels = data.shape
    _, taps_y, taps_x, channels = filters.shape
    batches, out_height, out_width, _ = view.output().shape
    padding = view.text("padding")
    strides = view.integer("stride_h"), view.integer("stride_w")
    dilations = view.integer("dilation_h_factor", 1), view.integer("dilation_w_factor", 1)
    (y,) = convolution_sampling(in_height, out_height, taps_y, strides[0], dilations[0], padding)
    (x,) = convolution_sampling(in_width, out_width, taps_x, strides[1], dilations[1], padding)

    tile = tile_size(out_width, (2 * taps_y + 4) * channels, PIXELS)
    layout = x.layout(tile)
    reading = Reading(
        in_height, in_width, in_channels, channels // in_channels, y.tap_step, taps_y,
        x.in_step, x.tap_step, taps_x, layout.columns, layout.gathered,
    )  # fmt: skip
    weights, folded = _pack(
        centred_filter(filters).reshape(-1, channels), None if bias is None else bias.data, data.zero_point
    )
    outputs = batches * out_height * out_width * channels
    geometry = DepthwiseGeometry(
        batches, out_height, out_width, y.in_first, y.in_step, x.in_first, tile, layout.pixel_step,
        batches * out_height * -(-out_width // tile),
        threads_for(outputs * taps_y * taps_x, outputs, target.threads),
    )  # fmt: skip
    return DepthwiseConvolution(
        geometry, reading,
        np.array(tap_starts(taps_y, taps_x, layout, layout.columns, channels), np.int64),
        widening_for(data), weights, folded, prepare_epilogue(view, rule, data, filters, view.output()),
        Direct(depthwise_tasks if geometry.threads == 1 else depthwise_parallel),
    )  # fmt: skip


def _pack(
    taps: NDArray[np.int16], bias: Array | None, input_zero_point: int
) -> tuple[NDArray[np.int16], NDArray[np.int32]]:
    """Weights and folded bias from filter taps [tap, channel], padded to whole blocks of channels."""
    padding = (0, -taps.shape[1] % CHANNELS)
    folded = -input_zero_point * taps.sum(axis=0, dtype=np.int64)
    if bias is not None:
        folded = folded + bias.astype(np.int64)
    return np.pad(taps, ((0, 0), padding)), np.pad(folded.astype(np.int32), padding)


@njit(cache=True, nogil=True)
def _depthwise_tile(
    image: Array,
    widening: Widening,
    g: DepthwiseGeometry,
    reading: Reading,
    offsets: Array,
    weights: Array,
    folded: Array,
    epilogue: Epilogue,
    task: int,
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
    channels, lanes = reading.in_channels * reading.copies, folded.size

    in_y = g.in_y + out_y * g.stride_y
    in_x = g.in_x + first_column * reading.in_x_step
    fill_patch(image, widening, reading, batch, in_y, in_x, pixels, patch)

    stride = g.pixel_step * channels
    patch_address, acc_address = patch.ctypes.data, acc.ctypes.data
    offsets_address, weights_address = offsets.ctypes.data, weights.ctypes.data
    folded_address = folded.ctypes.data
    for pixel in range(0, pixels, PIXELS):
        for lane in range(0, lanes, CHANNELS):
            multiply_channels(
                patch_address + 2 * (pixel * stride + lane), stride, offsets_address, offsets.size,
                weights_address + 2 * lane, lanes, folded_address + 4 * lane,
                acc_address + 4 * (pixel * lanes + lane), lanes,
            )  # fmt: skip
    at = (out_row * g.out_width + first_column) * channels
    requantize_pixels(acc[:pixels], epilogue, 0, channels, out, at, channels)
    if acc_out.size:
        for pixel in range(pixels):
            begin = at + pixel * channels
            acc_out[begin : begin + channels] = acc[pixel, :channels]


@njit(cache=True, nogil=True)
def depthwise_tasks(
    image: Array,
    widening: Widening,
    g: DepthwiseGeometry,
    reading: Reading,
    offsets: Array,
    weights: Array,
    folded: Array,
    epilogue: Epilogue,
    begin: int,
    end: int,
    out: Array,
    acc_out: Array,
) -> None:
    """Runs tiles ``begin`` … ``end - 1`` on this thread. Sums wrap at 32 bits."""
    # The last block of channels reads past its pixel, and of the last pixel past the patch.
    patch_size = reading.taps_y * reading.patch_columns * reading.in_channels * reading.copies + CHANNELS
    patch = np.empty(patch_size, np.int16)
    acc = np.empty((g.tile, folded.size), np.int32)
    for task in range(begin, end):
        _depthwise_tile(
            image, widening, g, reading, offsets, weights, folded, epilogue, task, patch, acc, out, acc_out
        )


@njit(cache=True, nogil=True, parallel=True)
def depthwise_parallel(
    image: Array,
    widening: Widening,
    g: DepthwiseGeometry,
    reading: Reading,
    offsets: Array,
    weights: Array,
    folded: Array,
    epilogue: Epilogue,
    out: Array,
    acc_out: Array,
) -> None:
    """Every tile, shared out in order over the layer's threads."""
    for worker in prange(g.threads):
        begin = g.tasks * worker // g.threads
        end = g.tasks * (worker + 1) // g.threads
        depthwise_tasks(
            image, widening, g, reading, offsets, weights, folded, epilogue, begin, end, out, acc_out
        )
