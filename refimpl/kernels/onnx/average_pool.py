"""QLinearAveragePool and QLinearGlobalAveragePool, in either layout.

The first adds float32 values up, tap after tap; the second adds integers and scales their sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from karat24.refimpl.contract import Kernel, Target, Values
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.kernels.elementwise.lookup import full_range
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


class Average(NamedTuple):
    """A QLinearAveragePool: ``rint(f32(f32(sum / count) / scale) + zero_point)``, bounded.

    A byte stands for ``float32((byte ^ flip) - offset) * step``.
    """

    flip: np.uint8
    """128 for int8, 0 for uint8."""
    offset: np.int32
    """The input's zero point and ``flip``."""
    step: np.float32
    """The input's scale."""
    rows: NDArray[np.int64]
    """[output row, 3]: first tap inside the image, taps inside, taps that count."""
    columns: NDArray[np.int64]
    """[output column, 3], likewise."""
    dilations: tuple[int, ...]
    """Rows and columns from a tap to the next."""
    scale: np.float32
    """The output's scale."""
    zero_point: np.float32
    """The output's zero point."""
    low: np.float32
    """Least output."""
    high: np.float32
    """Greatest output."""


class GlobalAverage(NamedTuple):
    """QLinearGlobalAveragePool: ``rint(f32(sum of (byte ^ flip) - offset) * scale) + zero_point``."""

    flip: np.uint8
    """128 for int8, 0 for uint8."""
    offset: int
    """The input's zero point and ``flip``, times the number of pixels."""
    scale: np.float32
    """Output steps per unit of the sum."""
    zero_point: int
    """The output's zero point."""
    low: np.float32
    """Least output less the zero point."""
    high: np.float32
    """Greatest output less the zero point."""


def prepare_qlinear_average_pool(view: LayerView, rule: Rule, target: Target) -> Kernel | None:
    """QLinearAveragePool: rint(f32(f32(sum / n) / s_y) + z_y) of the values' float32 sum.

    n counts the taps inside the image, or with ``count_include_pad`` all of them. A window as
    large as the image is averaged as QLinearGlobalAveragePool does. None for other than two spatial axes.
    """
    if rule.method == "float32_half_even":
        return prepare_qlinear_global_average_pool(view, rule, target)
    image, output = view.input(0), view.output()
    if len(image.shape) != 4:
        return None
    source, result = parameters(view, 1, 2), parameters(view, 3, 4)
    flip = 128 if image.dtype == "int8" else 0
    rows, columns = _taps(view, 0), _taps(view, 1)
    low, high = (np.float32(bound) for bound in full_range(output.dtype))
    average = Average(
        np.uint8(flip), np.int32(flip + source.zero_points[0]), np.float32(source.scales[0]), rows, columns,
        view.integers("dilations", (1, 1)), np.float32(result.scales[0]), np.float32(result.zero_points[0]),
        low, high,
    )  # fmt: skip
    planes, work = (
        math.prod(image.shape[:2]),
        math.prod(output.shape) * math.prod(view.integers("kernel_shape")),
    )

    def arguments(inputs: Values, outputs: Sequence[Array]) -> tuple[Any, ...]:
        values = flat_bytes(buffer(inputs, 0)).reshape(planes, *image.shape[2:])
        out = flat_bytes(outputs[0]).reshape(planes, len(rows), len(columns))
        return values, average, out

    def of_images(inputs: Values, outputs: Sequence[Array]) -> tuple[Any, ...]:
        values, out = buffer(inputs, 0).view(np.uint8), outputs[0].view(np.uint8)
        return values, average, out

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
    average = GlobalAverage(np.uint8(flip), offset, scale, zero_point, low, high)

    def arguments(inputs: Values, outputs: Sequence[Array]) -> tuple[Any, ...]:
        values, out = flat_bytes(buffer(inputs, 0)).reshape(planes, count), flat_bytes(outputs[0])
        return values, average, out

    kernel = LoopKernel(planes * count, planes, _global_average, arguments)
    if len(image.shape) != len(TO_NHWC):
        return elementwise(kernel, 0)
    batches, channels = image.shape[:2]
    blocks = -(-channels // _CHANNELS)

    def of_images(inputs: Values, outputs: Sequence[Array]) -> tuple[Any, ...]:
        values = flat_bytes(buffer(inputs, 0)).reshape(batches, count, channels)
        out = flat_bytes(outputs[0]).reshape(batches, channels)
        return values, average, blocks, out

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
    counted = np.ones_like(inside) if view.integer("count_include_pad", 0) else inside
    return np.stack([first, inside.sum(axis=1), counted.sum(axis=1)], axis=1).astype(np.int64)


@njit(cache=True, nogil=True, error_model="numpy")
def _average(values: Any, a: Any, out: Any, begin: int, end: int) -> None:
    """Output rows ``begin`` … ``end - 1`` of all planes; ``values`` and ``out`` [plane, y, x]."""
    _, height, across = out.shape
    for row in range(begin, end):
        plane, y = row // height, row % height
        image, line = values[plane], out[plane, y]
        for x in range(across):
            total = np.float32(0)
            for tap_y in range(a.rows[y, 1]):
                source = image[a.rows[y, 0] + tap_y * a.dilations[0]]
                for tap_x in range(a.columns[x, 1]):
                    byte = source[a.columns[x, 0] + tap_x * a.dilations[1]]
                    total += np.float32(np.int32(byte ^ a.flip) - a.offset) * a.step
            mean = total / np.float32(a.rows[y, 2] * a.columns[x, 2])
            whole = np.rint(np.float32(mean / a.scale) + a.zero_point)
            line[x] = np.uint8(np.int64(min(max(whole, a.low), a.high)))


@njit(cache=True, nogil=True, error_model="numpy")
def _average_nhwc(values: Any, a: Any, out: Any, begin: int, end: int) -> None:
    """Output rows ``begin`` … ``end - 1`` of all images; ``values`` and ``out`` [batch, y, x, channel]."""
    _, height, across, channels = out.shape
    flip, offset, step = a.flip, a.offset, a.step
    for row in range(begin, end):
        batch, y = row // height, row % height
        totals = np.empty(channels, np.float32)
        for x in range(across):
            totals[:] = np.float32(0)
            for tap_y in range(a.rows[y, 1]):
                line = values[batch, a.rows[y, 0] + tap_y * a.dilations[0]]
                for tap_x in range(a.columns[x, 1]):
                    pixel = line[a.columns[x, 0] + tap_x * a.dilations[1]]
                    for k in range(channels):
                        totals[k] += np.float32(np.int32(pixel[k] ^ flip) - offset) * step
            count, cell = np.float32(a.rows[y, 2] * a.columns[x, 2]), out[batch, y, x]
            for k in range(channels):
                whole = np.rint(np.float32(np.float32(totals[k] / count) / a.scale) + a.zero_point)
                cell[k] = np.uint8(np.int64(min(max(whole, a.low), a.high)))


@njit(cache=True, nogil=True)
def _global_average(values: Any, a: Any, out: Any, begin: int, end: int) -> None:
    """Planes ``begin`` … ``end - 1``; ``values`` [plane, pixel], ``out`` [plane]."""
    flip = a.flip
    for plane in range(begin, end):
        total, row = np.int32(0), values[plane]
        for i in range(row.size):
            total = add32(total, row[i] ^ flip)
        # Clamping before rounding changes nothing: the bounds are whole.
        steps = np.float32(np.float32(total - a.offset) * a.scale)
        out[plane] = np.uint8(np.int64(np.rint(min(max(steps, a.low), a.high))) + a.zero_point)


@njit(cache=True, nogil=True)
def _global_average_nhwc(values: Any, a: Any, blocks: int, out: Any, begin: int, end: int) -> None:
    """Blocks of channels; ``values`` [batch, pixel, channel], ``out`` [batch, channel]."""
    _, count, channels = values.shape
    flip = a.flip
    for task in range(begin, end):
        batch, first = task // blocks, task % blocks * _CHANNELS
        last = min(first + _CHANNELS, channels)
        totals = np.zeros(last - first, np.int32)
        for pixel in range(count):
            row = values[batch, pixel, first:last]
            for k in range(totals.size):
                totals[k] = add32(totals[k], np.int32(row[k] ^ flip))
        for k in range(totals.size):
            steps = np.float32(np.float32(totals[k] - a.offset) * a.scale)
            whole = np.int64(np.rint(min(max(steps, a.low), a.high))) + a.zero_point
            out[batch, first + k] = np.uint8(whole)
