"""MAX_POOL_2D and AVERAGE_POOL_2D over ``[batch, y, x, channel]``, output rows in parallel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from karat24.refimpl.contract import Kernel, MaxPool2x2, Target, Values
from karat24.refimpl.graph import DTYPES, Array, LayerView
from karat24.refimpl.kernels.images.pool_block import ByteWindow, largest_of_window
from karat24.refimpl.kernels.images.strided_images import whole_image, whole_pixels
from karat24.refimpl.kernels.jit.no_refcount import task_loop
from karat24.refimpl.kernels.rounding.multipliers import combined_scales, output_bounds
from karat24.refimpl.kernels.threads.task_kernel import LoopKernel
from karat24.refimpl.profiles.rules import Rule

TAPS_AT_ONCE = 8
"""Taps of a maximum that take as long as an elementary step of other loops."""


@dataclass(frozen=True)
class MaxPool(LoopKernel):
    """A prepared MAX_POOL_2D; ``maxima``: how it pools, where its windows are 2x2 and side by side."""

    maxima: MaxPool2x2 | None = None


def prepare_max_pool(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """MAX_POOL_2D: the largest tap inside the input, clamped."""
    return prepare_padded_max_pool(view, rule, target, _paddings(view))


def prepare_padded_max_pool(view: LayerView, rule: Rule, target: Target, before: tuple[int, int]) -> Kernel:
    """MAX_POOL_2D whose first window begins ``before`` rows above and columns left of the image."""
    kernel = _prepare_pool(view, rule, before, _max_pool, TAPS_AT_ONCE)
    window = [view.integer(f"{name}_{axis}") for name, axis in _WINDOW]
    maxima = None
    if window == [2] * len(window) and before == (0, 0):
        _, height, width, _ = view.output().shape
        maxima = MaxPool2x2(height, width, int(view.output().dtype == "int8"), *_bounds(view, rule))
    return MaxPool(**vars(kernel), maxima=maxima)


_WINDOW = (("filter", "height"), ("filter", "width"), ("stride", "h"), ("stride", "w"))


def prepare_average_pool(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """AVERAGE_POOL_2D: taps inside the input only, divided half away from zero, clamped.

    Under the rule ``float32_half_even`` their sum is multiplied by a float32 instead.
    """
    if rule.method == "float32_half_even":
        return _prepare_pool(view, rule, _paddings(view), _average_by_multiplier, more=_rescaling(view, rule))
    return _prepare_pool(view, rule, _paddings(view), _average_pool)


class Rescaling(NamedTuple):
    """From a sum of stored values to an output."""

    factors: NDArray[np.float32]
    """What sums of 0, 1, 2 ... values are multiplied by."""
    zero_in: int
    zero_out: int


def _rescaling(view: LayerView, rule: Rule) -> tuple[Rescaling]:
    data, output = view.input(0), view.output()
    taps = view.integer("filter_height") * view.integer("filter_width")
    shares = np.reciprocal(np.maximum(np.arange(taps + 1), 1).astype(np.float32))
    factors = combined_scales(data.scale, shares.tolist(), output.scale, rule.multiplier)
    return (Rescaling(factors.astype(np.float32), data.zero_point, output.zero_point),)


def _bounds(view: LayerView, rule: Rule) -> tuple[int, int]:
    return output_bounds(view.output(), view.text("fused_activation_function", "NONE"), rule.clamp, view)


def _prepare_pool(
    view: LayerView,
    rule: Rule,
    before: tuple[int, int],
    pool: Any,
    taps_per_step: int = 1,
    more: tuple[Any, ...] = (),
) -> LoopKernel:
    output = view.output()
    low, high = (DTYPES[output.dtype].type(bound) for bound in _bounds(view, rule))
    rows, columns = _spans(view, 0, before[0]), _spans(view, 1, before[1])
    channels = output.shape[3]
    taps = math.prod(output.shape) * view.integer("filter_height") * view.integer("filter_width")

    def arguments(inputs: Values, outputs: Sequence[Array]) -> tuple[Any, ...]:
        image, out = whole_image(inputs, 0), whole_pixels(outputs[0])
        return *more, image, rows, columns, channels, low, high, out

    tasks = output.shape[0] * output.shape[1]
    return LoopKernel(
        taps // taps_per_step, tasks, pool, arguments, strided_inputs=True, strided_outputs=True
    )


def _window(view: LayerView, axis: int) -> tuple[int, int]:
    """Stride and taps along y (0) or x (1)."""
    return view.integer(f"stride_{'hw'[axis]}"), view.integer(f"filter_{('height', 'width')[axis]}")


def _paddings(view: LayerView) -> tuple[int, int]:
    """Rows above and columns before the image that windows reach."""
    y, x = 0, 0
    if view.text("padding") == "SAME":
        y, x = (_same_padding(view, axis) for axis in (0, 1))
    return y, x


def _same_padding(view: LayerView, axis: int) -> int:
    stride, taps = _window(view, axis)
    size, count = view.input(0).shape[1 + axis], view.output().shape[1 + axis]
    return max((count - 1) * stride + taps - size, 0) // 2


def _spans(view: LayerView, axis: int, before: int) -> NDArray[np.int64]:
    """First tap and the one after the last, ``[out, 2]``, of each output index along y (0) or x (1)."""
    size, count = view.input(0).shape[1 + axis], view.output().shape[1 + axis]
    stride, taps = _window(view, axis)
    first = np.arange(count, dtype=np.int64) * stride - before
    return np.stack([np.maximum(first, 0), np.minimum(first + taps, size)], axis=1)


@task_loop
def _max_pool(
    image: Any, rows: Any, columns: Any, channels: int, low: Any, high: Any, out: Any, begin: int, end: int
) -> None:
    _, out_height, out_width, _ = out.shape
    for row in range(begin, end):
        batch, out_y = row // out_height, row % out_height
        y_begin, y_end = rows[out_y, 0], rows[out_y, 1]
        for out_x in range(out_width):
            x_begin, x_end = columns[out_x, 0], columns[out_x, 1]
            window = image[batch, y_begin:, x_begin:]
            taps = ByteWindow(
                window.ctypes.data, y_end - y_begin, window.strides[0], x_end - x_begin, window.strides[1]
            )
            largest_of_window(taps, channels, low, high, out[batch, out_y, out_x:].ctypes.data)


@njit(cache=True, nogil=True, error_model="numpy")
def _average_pool(
    image: Any, rows: Any, columns: Any, channels: int, low: Any, high: Any, out: Any, begin: int, end: int
) -> None:
    _, out_height, out_width, _ = out.shape
    floor, ceiling = np.int32(low), np.int32(high)
    for row in range(begin, end):
        batch, out_y = row // out_height, row % out_height
        y_begin, y_end = rows[out_y, 0], rows[out_y, 1]
        total = np.empty(channels, np.int32)
        for out_x in range(out_width):
            x_begin, x_end = columns[out_x, 0], columns[out_x, 1]
            total[:] = 0
            for y in range(y_begin, y_end):
                for x in range(x_begin, x_end):
                    tap = image[batch, y, x]
                    for c in range(channels):
                        total[c] += np.int32(tap[c])
            count = (y_end - y_begin) * (x_end - x_begin)
            half, divisor = np.float64(count // 2), np.float64(count)
            cell = out[batch, out_y, out_x]
            for c in range(channels):
                # A float64 quotient of integers below 2**32 truncates to the integer quotient.
                magnitude = np.int32((np.abs(np.float64(total[c])) + half) / divisor)
                mean = magnitude if total[c] > 0 else -magnitude
                cell[c] = min(max(mean, floor), ceiling)


@task_loop
def _average_by_multiplier(
    by: Any, image: Any, rows: Any, columns: Any, channels: int, low: Any, high: Any, out: Any,
    begin: int, end: int,
) -> None:  # fmt: skip
    """As :func:`_average_pool`; sums of n values without zero points times ``by.factors[n]``."""
    _, out_height, out_width, _ = out.shape
    floor, ceiling = np.float32(np.int64(low) - by.zero_out), np.float32(np.int64(high) - by.zero_out)
    for row in range(begin, end):
        batch, out_y = row // out_height, row % out_height
        y_begin, y_end = rows[out_y, 0], rows[out_y, 1]
        for out_x in range(out_width):
            x_begin, x_end = columns[out_x, 0], columns[out_x, 1]
            count = (y_end - y_begin) * (x_end - x_begin)
            cell = out[batch, out_y, out_x]
            for c in range(channels):
                total = -count * by.zero_in
                for y in range(y_begin, y_end):
                    for x in range(x_begin, x_end):
                        total += np.int64(image[batch, y, x, c])
                steps = np.float32(np.float32(total) * by.factors[count])
                cell[c] = np.int64(np.rint(min(max(steps, floor), ceiling))) + by.zero_out
