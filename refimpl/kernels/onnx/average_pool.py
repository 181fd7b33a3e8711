"""QLinearAveragePool and QLinearGlobalAveragePool, in either layout.

The first adds float32 values up, tap after tap; the second adds integers and scales their sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from karat24.refimpl.contract import Kernel, Target, Values
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.kernels.elementwise.lookup import byte_values, full_range
from karat24.refimpl.kernels.jit.operands import buffer, flat_bytes
from karat24.refimpl.kernels.jit.wrapping_int32 import add32
from karat24.refimpl.kernels.moves.image_layout import TO_NHWC
from karat24.refimpl.kernels.onnx.images import ImageKernel, elementwise
from karat24.refimpl.kernels.onnx.parameters import parameters, window
from karat24.refimpl.kernels.threads.task_kernel import LoopKernel
from karat24.refimpl.profiles.rules import Rule

_CHANNELS = 256
"""Channels of an NHWC image that one task of a global average takes."""

_TAPS_PER_STEP = 8
"""Bytes of neighbouring channels added in the time of an elementary step of other loops."""


def prepare_qlinear_average_pool(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """QLinearAveragePool: rint(f32(f32(sum / n) / s_y) + z_y) of the values' float32 sum.

    n counts the taps inside the image, or with ``count_include_pad`` those in the padding, too.
    """
    image, output = view.input(0), view.output()
    source, result = parameters(view, 1, 2), parameters(view, 3, 4)
    centred = byte_values(image.dtype) - source.zero_points[0]
    reals = centred.astype(np.float32) * np.float32(source.scales[0])
    rows, columns = _taps(view, 0), _taps(view, 1)
    dilations = view.integers("dilations", (1, 1))
    steps = dilations[0] * image.shape[3], dilations[1]
    scale, zero_point = np.float32(result.scales[0]), np.float32(result.zero_points[0])
    low, high = (np.float32(bound) for bound in full_range(output.dtype))
    planes, work = (
        math.prod(image.shape[:2]),
        math.prod(output.shape) * math.prod(view.integers("kernel_shape")),
    )

    def arguments(inputs: Values, outputs: Sequence[Array]) -> tuple[Any, ...]:
        values = flat_bytes(buffer(inputs, 0)).reshape(planes, -1)
        out = flat_bytes(outputs[0]).reshape(planes, len(rows), len(columns))
        return values, reals, image.shape[3], rows, columns, steps, scale, zero_point, low, high, out

    flip = 128 if image.dtype == "int8" else 0
    conversion = np.uint8(flip), np.int32(flip + source.zero_points[0]), np.float32(source.scales[0])

    def of_images(inputs: Values, outputs: Sequence[Array]) -> tuple[Any, ...]:
        values, out = buffer(inputs, 0).view(np.uint8), outputs[0].view(np.uint8)
        return values, *conversion, rows, columns, dilations, scale, zero_point, low, high, out

    return ImageKernel(
        LoopKernel(work, image.shape[0] * len(rows), _average_nhwc, of_images), (0,),
        LoopKernel(work, planes * len(rows), _average, arguments),
    )  # fmt: skip


def prepare_qlinear_global_average_pool(view: LayerView, rule: Rule, target: Target) -> Kernel | None:
    """QLinearGlobalAveragePool: rint(f32(sum of x - z_x) * f32(s_x / f32(s_y * n))) + z_y.

    None for another rounding than to the nearest float32 product.
    """
    if rule.method != "float32_half_even":
        return None
    image, output = view.input(0), view.output()
    source, result = parameters(view, 1, 2), parameters(view, 3, 4)
    planes, count = math.prod(image.shape[:2]), math.prod(image.shape[2:])
    scale = np.float32(source.scales[0]) / (np.float32(result.scales[0]) * np.float32(count))
    # A byte of int8 with its sign bit flipped is 128 more than its value.
    flip = 128 if image.dtype == "int8" else 0
    offset, zero_point = count * (flip + source.zero_points[0]), result.zero_points[0]
    low, high = (np.float32(bound - zero_point) for bound in full_range(output.dtype))

    def arguments(inputs: Values, outputs: Sequence[Array]) -> tuple[Any, ...]:
        values, out = flat_bytes(buffer(inputs, 0)).reshape(planes, count), flat_bytes(outputs[0])
        return values, np.uint8(flip), offset, scale, zero_point, low, high, out

    kernel = LoopKernel(planes * count, planes, _global_average, arguments)
    if len(image.shape) != len(TO_NHWC):
        return elementwise(kernel, 0)
    batches, channels = image.shape[:2]
    blocks = -(-channels // _CHANNELS)

    def of_images(inputs: Values, outputs: Sequence[Array]) -> tuple[Any, ...]:
        values = flat_bytes(buffer(inputs, 0)).reshape(batches, count, channels)
        out = flat_bytes(outputs[0]).reshape(batches, channels)
        return values, np.uint8(flip), offset, scale, zero_point, low, high, blocks, out

    work = planes * count // _TAPS_PER_STEP + planes
    return ImageKernel(LoopKernel(work, batches * blocks, _global_average_nhwc, of_images), (0,), kernel)


def _taps(view: LayerView, axis: int) -> NDArray[np.int64]:
    """For each window along a spatial axis ``[first tap inside the image, taps inside, taps that count]``."""
    size, count = view.input(0).shape[2 + axis], view.output().shape[2 + axis]
    kernel = view.integers("kernel_shape")
    over, taps = window(view, (kernel[0], kernel[1])), np.arange(kernel[axis])
    positions = (
        np.arange(count)[:, None] * over.strides[axis] - over.before[axis] + taps * over.dilations[axis]
    )
    inside = (positions >= 0) & (positions < size)
    first = np.take_along_axis(positions, inside.argmax(axis=1)[:, None], axis=1)[:, 0]
    counted = inside
    if view.integer("count_include_pad", 0):
        behind = view.integers("pads", (0, 0, 0, 0))[2 + axis]
        counted = positions < size + (behind if view.text("auto_pad", "NOTSET") == "NOTSET" else 0)
    return np.stack([first, inside.sum(axis=1), counted.sum(axis=1)], axis=1).astype(np.int64)


@njit(cache=True, nogil=True, error_model="numpy")
def _average(
    values: Any,
    reals: Any,
    width: int,
    rows: Any,
    columns: Any,
    steps: Any,
    scale: Any,
    zero_point: Any,
    low: Any,
    high: Any,
    out: Any,
    begin: int,
    end: int,
) -> None:
    _, height, across = out.shape
    for row in range(begin, end):
        plane, y = row // height, row % height
        image, line = values[plane], out[plane, y]
        for x in range(across):
            total = np.float32(0)
            for tap_y in range(rows[y, 1]):
                begin = rows[y, 0] * width + tap_y * steps[0] + columns[x, 0]
                for tap_x in range(columns[x, 1]):
                    total += reals[image[begin + tap_x * steps[1]]]
            mean = total / np.float32(rows[y, 2] * columns[x, 2])
            whole = np.rint(np.float32(mean / scale) + zero_point)
            line[x] = np.uint8(np.int64(min(max(whole, low), high)))


@njit(cache=True, nogil=True)
def _global_average(
    values: Any,
    flip: Any,
    offset: int,
    scale: Any,
    zero_point: int,
    low: Any,
    high: Any,
    out: Any,
    begin: int,
    end: int,
) -> None:
    for plane in range(begin, end):
        total, row = np.int32(0), values[plane]
        for i in range(row.size):
            total = add32(total, row[i] ^ flip)
        # Clamping before rounding changes nothing: the bounds are whole.
        steps = np.float32(np.float32(total - offset) * scale)
        out[plane] = np.uint8(np.int64(np.rint(min(max(steps, low), high))) + zero_point)


@njit(cache=True, nogil=True, error_model="numpy")
def _average_nhwc(
    values: Any, flip: Any, offset: Any, step: Any, rows: Any, columns: Any, dilations: Any, scale: Any,
    zero_point: Any, low: Any, high: Any, out: Any, begin: int, end: int,
) -> None:  # fmt: skip
    """Output rows ``begin`` … ``end - 1`` of [batch, y, x, channel]."""
    _, height, across, channels = out.shape
    for row in range(begin, end):
        batch, y = row // height, row % height
        totals = np.empty(channels, np.float32)
        for x in range(across):
            totals[:] = np.float32(0)
            for tap_y in range(rows[y, 1]):
                line = values[batch, rows[y, 0] + tap_y * dilations[0]]
                for tap_x in range(columns[x, 1]):
                    pixel = line[columns[x, 0] + tap_x * dilations[1]]
                    for k in range(channels):
                        totals[k] += np.float32(np.int32(pixel[k] ^ flip) - offset) * step
            count, cell = np.float32(rows[y, 2] * columns[x, 2]), out[batch, y, x]
            for k in range(channels):
                whole = np.rint(np.float32(np.float32(totals[k] / count) / scale) + zero_point)
                cell[k] = np.uint8(np.int64(min(max(whole, low), high)))


@njit(cache=True, nogil=True)
def _global_average_nhwc(
    values: Any, flip: Any, offset: int, scale: Any, zero_point: int, low: Any, high: Any, blocks: int,
    out: Any, begin: int, end: int,
) -> None:  # fmt: skip
    """Blocks of channels of [batch, pixel, channel]."""
    _, count, channels = values.shape
    for task in range(begin, end):
        batch, first = task // blocks, task % blocks * _CHANNELS
        last = min(first + _CHANNELS, channels)
        totals = np.zeros(last - first, np.int32)
        for pixel in range(count):
            row = values[batch, pixel, first:last]
            for k in range(totals.size):
                totals[k] = add32(totals[k], np.int32(row[k] ^ flip))
        for k in range(totals.size):
            steps = np.float32(np.float32(totals[k] - offset) * scale)
            whole = np.int64(np.rint(min(max(steps, low), high))) + zero_point
            out[batch, first + k] = np.uint8(whole)
