"""Convolutions of int16 images and int8 filters, tap by tap: of any kind and with any bias.

A product of int16 and int8 is at most 2^22 in magnitude, so 511 of them are less than 2^31: they are added up
in 32 bits and carried over into 64 bits. Output channels are innermost everywhere, so that the inner loops
run along vectors; a layer is as fast as by a BLAS library's float64 products, which are exact as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from karat24.refimpl.contract import Kernel, Target, Values
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.kernels.convolution.conv_2d import paddings_before
from karat24.refimpl.kernels.convolution.tiling import Sampling, convolution_sampling, transposed_sampling
from karat24.refimpl.kernels.jit.no_refcount import no_refcount_inlined, no_refcount_once, task_loop
from karat24.refimpl.kernels.jit.operands import operand
from karat24.refimpl.kernels.jit.scratch import allocate, piece, piece_size, release
from karat24.refimpl.kernels.rounding.fixed_point import wrap32
from karat24.refimpl.kernels.rounding.wide_requantize import (
    WideRequantization,
    prepare_wide_requantization,
    rescaled,
)
from karat24.refimpl.kernels.threads.task_kernel import TaskKernel, Tasks
from karat24.refimpl.profiles.rules import Rule

PRODUCTS_IN_32_BITS = 511
"""Products whose sum an int32 holds."""

TOGETHER = 4
"""Input channels whose products are added up before they are written to memory."""

PRODUCTS_PER_STEP = 8
"""Products that take as long as an elementary step of other loops."""

_TAP, _TAP_STEP, _PLACE, _PLACE_STEP, _COUNT = range(5)
"""Columns of :func:`taps_read`."""


def taps_read(phases: Sequence[Sampling], outputs: int, size: int) -> NDArray[np.int64]:
    """What each output along an axis reads of ``size`` inputs, int64 ``[output, 5]``.

    Tap ``tap + i * tap_step`` reads input ``place + i * place_step``, for i < ``count``: taps beside the
    image are left out.
    """
    table = np.zeros((outputs, 5), np.int64)
    for phase in phases:
        if not phase.taps:
            continue
        output = np.arange(phase.outputs, dtype=np.int64)
        place = phase.in_first + phase.in_step * output
        change = phase.filter_taps[1] - phase.filter_taps[0] if phase.taps > 1 else 0
        first = np.maximum(-(place // phase.tap_step), 0)
        end = np.minimum(-((place - size) // phase.tap_step), phase.taps)
        rows = table[phase.out_first :: phase.out_step][: phase.outputs]
        rows[:, _TAP], rows[:, _TAP_STEP] = phase.filter_taps[0] + first * change, change
        rows[:, _PLACE], rows[:, _PLACE_STEP] = place + first * phase.tap_step, phase.tap_step
        rows[:, _COUNT] = np.maximum(end - first, 0)
    return table


class WideGeometry(NamedTuple):
    """Sizes the compiled loop needs; one compiled function serves every shape."""

    in_height: int
    """Rows of an input image."""
    in_width: int
    """Pixels of an input row."""
    in_channels: int
    """Channels of an input pixel."""
    out_height: int
    """Rows of an output image."""
    out_width: int
    """Pixels of an output row."""
    channels: int
    """Channels of an output pixel."""
    taps_x: int
    """Columns of the filter."""
    depth: int
    """Input channels of a group."""
    packed_depth: int
    """Those of the weights: a multiple of ``TOGETHER``, or 1."""
    group_filters: int
    """Output channels of a group."""


class WideLayer(NamedTuple):
    """What the compiled loop knows of a layer besides its arrays."""

    geometry: WideGeometry
    rows: NDArray[np.int64]
    """What each output row reads (:func:`taps_read`)."""
    columns: NDArray[np.int64]
    """What each output column reads."""
    weights: NDArray[np.int8]
    """Flat ``[tap y, tap x, packed_depth, out_channel]``."""
    bias: NDArray[np.int64]
    """One per output channel."""
    requantization: WideRequantization


@dataclass(frozen=True)
class WideConvolution(TaskKernel):
    """A prepared layer; its tasks are output pixels. Input ``position`` is its image."""

    position: int
    wide: WideLayer
    pixels: int
    work: int

    @property
    def function(self) -> Any:
        """The compiled loop."""
        return wide_tasks

    @property
    def compile_seconds(self) -> float:
        """An estimate for the loop, as in :class:`TaskKernel`: as long as that of dense convolutions."""
        return 2.0

    def tasks(self, inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> Tasks:
        """The tasks on these arrays, and on ``accumulator`` unless it is None."""
        image = operand(inputs, self.position).reshape(-1)
        image.flags.writeable = False  # of this view: constants have the same Numba type as other images
        assert outputs[0].flags.c_contiguous
        sums = np.empty(0, np.int64)
        if accumulator is not None:
            assert accumulator.flags.c_contiguous
            sums = accumulator.reshape(-1)
        return Tasks((self.wide, image, outputs[0].reshape(-1), sums), self.pixels, self.work)


def prepare_wide_convolution(view: LayerView, rule: Rule, target: Target) -> Kernel | None:
    """The kernel of an int16 layer that multiplies by a filter; None for rounding it lacks."""
    transposed = view.op == "TRANSPOSE_CONV"
    position, of_bias = (2, 3) if transposed else (0, 2)
    bias = view.optional_input(of_bias)
    requantization = prepare_wide_requantization(view, rule, view.input(position), view.input(1), bias)
    if requantization is None:
        return None
    return wide_convolution(view, position, None if bias is None else bias.data, requantization)


def wide_convolution(
    view: LayerView, position: int, bias: Array | None, requantization: WideRequantization
) -> WideConvolution:
    """The loop over a layer's sums: of input ``position``, which has int16 values when it runs, and input 1.

    The layer is CONV_2D, DEPTHWISE_CONV_2D, TRANSPOSE_CONV or FULLY_CONNECTED; its filter is int8.
    """
    filters, (data, taps, output) = view.input(1), _image_shapes(view, position)
    assert filters.data is not None
    depthwise = view.op == "DEPTHWISE_CONV_2D"
    depth, channels = 1 if depthwise else taps[3], output[3]
    packed_depth = 1 if depth == 1 else -(-depth // TOGETHER) * TOGETHER
    weights = np.zeros((*taps[1:3], packed_depth, channels), np.int8)
    weights[:, :, :depth] = (
        filters.data.reshape(*taps[1:3], 1, channels)
        if depthwise
        else filters.data.reshape(taps).transpose(1, 2, 3, 0)
    )
    rows, columns = (
        taps_read(phases, output[axis], data[axis])
        for axis, phases in enumerate(_phases(view, data, taps, output), 1)
    )
    _, in_height, in_width, in_channels = data
    batches, out_height, out_width, _ = output
    geometry = WideGeometry(
        in_height, in_width, in_channels, out_height, out_width, channels, taps[2], depth, packed_depth,
        channels * depth // in_channels,
    )  # fmt: skip
    layer = WideLayer(
        geometry, rows, columns, weights.reshape(-1),
        np.zeros(channels, np.int64) if bias is None else np.array(bias, np.int64), requantization,
    )  # fmt: skip
    pixels = batches * out_height * out_width
    read = batches * int(rows[:, _COUNT].sum()) * int(columns[:, _COUNT].sum())
    return WideConvolution(
        position, layer, pixels, read * depth * channels // PRODUCTS_PER_STEP + pixels * channels
    )


_Shape: TypeAlias = tuple[int, ...]


def _image_shapes(view: LayerView, position: int) -> tuple[_Shape, _Shape, _Shape]:
    """The shapes of data, filter and output; of a FULLY_CONNECTED each row is an image of one pixel."""
    filters, output = view.input(1).shape, view.output().shape
    if view.op != "FULLY_CONNECTED":
        return view.input(position).shape, filters, output
    channels, depth = filters
    rows = math.prod(output) // channels
    return (rows, 1, 1, depth), (channels, 1, 1, depth), (rows, 1, 1, channels)


def _phases(view: LayerView, data: _Shape, taps: _Shape, output: _Shape) -> list[tuple[Sampling, ...]]:
    """The phases of both axes."""
    if view.op == "FULLY_CONNECTED":
        return [convolution_sampling(1, 1, 1, 1, 0)] * 2
    strides = view.integer("stride_h"), view.integer("stride_w")
    if view.op == "TRANSPOSE_CONV":
        padding = view.text("padding")
        return [
            transposed_sampling(data[axis], output[axis], taps[axis], stride, padding)
            for axis, stride in enumerate(strides, 1)
        ]
    dilations = view.integer("dilation_h_factor", 1), view.integer("dilation_w_factor", 1)
    steps = zip(strides, dilations, paddings_before(view, taps[1:3]), strict=True)
    return [
        convolution_sampling(output[axis], taps[axis], stride, dilation, before)
        for axis, (stride, dilation, before) in enumerate(steps, 1)
    ]


class WideMemory(NamedTuple):
    """Memory for one pixel at a time, one element per output channel."""

    part: Array
    """int32: products not carried over yet."""
    sums: Array
    """int64."""


@no_refcount_inlined
def _carry(memory: WideMemory) -> None:
    """Adds ``part`` to ``sums`` and begins it anew."""
    for o in range(memory.sums.size):
        memory.sums[o] += memory.part[o]
        memory.part[o] = 0


@no_refcount_once
def _accumulate(layer: WideLayer, memory: WideMemory, batch: int, y: int, x: int, image: Array) -> None:
    """The pixel's bias and products, added up in ``memory.sums``."""
    g, weights, part = layer.geometry, layer.weights, memory.part
    row, column = layer.rows[y], layer.columns[x]
    for o in range(g.channels):
        memory.sums[o], part[o] = layer.bias[o], 0
    pending = 0
    for i in range(row[_COUNT]):
        tap_y, in_y = row[_TAP] + i * row[_TAP_STEP], row[_PLACE] + i * row[_PLACE_STEP]
        for j in range(column[_COUNT]):
            tap_x, in_x = column[_TAP] + j * column[_TAP_STEP], column[_PLACE] + j * column[_PLACE_STEP]
            at = ((batch * g.in_height + in_y) * g.in_width + in_x) * g.in_channels
            pixel = image[at : at + g.in_channels]
            first = (tap_y * g.taps_x + tap_x) * g.packed_depth
            for c in range(0, g.depth, TOGETHER):
                if pending > PRODUCTS_IN_32_BITS - TOGETHER:
                    _carry(memory)
                    pending = 0
                if g.depth > 1:
                    _add_together(g, c, pixel, weights[(first + c) * g.channels :], part)
                    pending += TOGETHER
                    continue
                pending += 1
                factors = weights[first * g.channels : (first + 1) * g.channels]
                if g.channels == g.in_channels:
                    for o in range(g.channels):
                        part[o] += np.int32(pixel[o]) * np.int32(factors[o])
                    continue
                for channel in range(g.in_channels):
                    value, begin = np.int32(pixel[channel]), channel * g.group_filters
                    of_group, by = part[begin:], factors[begin:]
                    for o in range(g.group_filters):
                        of_group[o] += value * np.int32(by[o])
    _carry(memory)


@no_refcount_once
def _add_together(g: WideGeometry, c: int, pixel: Array, weights: Array, part: Array) -> None:
    """Products of ``TOGETHER`` channels of each group, from its channel ``c`` on, which is once the last but
    some: those behind it count as 0."""
    for group in range(g.in_channels // g.depth):
        at, begin, end = group * g.depth + c, group * g.group_filters, (group + 1) * g.group_filters
        left = g.depth - c
        v0 = np.int32(pixel[at])
        v1 = np.int32(pixel[at + 1]) if left > 1 else np.int32(0)
        v2 = np.int32(pixel[at + 2]) if left > 2 else np.int32(0)
        v3 = np.int32(pixel[at + 3]) if left > 3 else np.int32(0)
        w0, w1 = weights[begin:end], weights[g.channels + begin : g.channels + end]
        w2 = weights[2 * g.channels + begin : 2 * g.channels + end]
        w3 = weights[3 * g.channels + begin : 3 * g.channels + end]
        of_group = part[begin:end]
        for o in range(g.group_filters):
            of_group[o] += (
                v0 * np.int32(w0[o]) + v1 * np.int32(w1[o]) + v2 * np.int32(w2[o]) + v3 * np.int32(w3[o])
            )


@no_refcount_inlined
def _requantize(r: WideRequantization, method: int, first: int, last: int, sums: Array, out: Array) -> None:
    """Channels ``first`` … ``last - 1`` of one pixel by one method."""
    for o in range(first, last):
        steps = rescaled(sums[o], method, r.multiplier[o], r.shift[o], r.scale[o])
        out[o] = min(max(steps, r.low), r.high)


@task_loop
def wide_tasks(layer: WideLayer, image: Array, out: Array, acc_out: Array, begin: int, end: int) -> None:
    """Computes output pixels ``begin`` … ``end - 1``.

    ``image`` and ``out`` are int16, NHWC flat; ``acc_out`` int64 like ``out``. Either of the last two may be
    empty.
    """
    g, r = layer.geometry, layer.requantization
    of_part = piece_size(g.channels, 4)
    scratch = allocate(of_part + piece_size(g.channels, 8))
    memory = WideMemory(
        piece(scratch, 0, g.channels, np.int32), piece(scratch, of_part, g.channels, np.int64)
    )
    for pixel in range(begin, end):
        rest, x = divmod(pixel, g.out_width)
        batch, y = divmod(rest, g.out_height)
        _accumulate(layer, memory, batch, y, x, image)
        if r.wraps:
            for o in range(g.channels):
                memory.sums[o] = wrap32(memory.sums[o])
        at = pixel * g.channels
        if acc_out.size:
            for o in range(g.channels):
                acc_out[at + o] = memory.sums[o]
        if out.size:
            of_pixel = out[at : at + g.channels]
            _requantize(r, r.method, 0, r.body, memory.sums, of_pixel)
            _requantize(r, r.tail, r.body, g.channels, memory.sums, of_pixel)
    release(scratch)
