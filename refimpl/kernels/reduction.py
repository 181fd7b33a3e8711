"""Reductions along axes: MEAN, ARG_MAX, ARG_MIN."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numba import njit
from numpy.typing import NDArray

from refimpl.contract import Kernel, Target, Values
from refimpl.errors import UnsupportedOp
from refimpl.graph import Array, LayerView
from refimpl.kernels.fixed_point import fixed_point, gemmlowp, ruy
from refimpl.kernels.inner_loop import inner_loop
from refimpl.kernels.lookup import buffer, flat_bytes, full_range, operand
from refimpl.kernels.loop_kernel import LoopKernel
from refimpl.profiles.rules import Method, Rule


def prepare_mean(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """MEAN: sums in int32, then one rescale that also divides by the number of values."""
    data, output = view.input(0), view.output()
    axes = _axes(view, 1)
    count = math.prod(data.shape[axis] for axis in axes)
    low, high = full_range(output.dtype)
    channels = output.shape[-1] if output.shape else 1
    shape = math.prod(output.shape[:-1]), channels
    body = channels if rule.tail is None else channels // rule.block * rule.block
    finish = _finisher(view, rule.method, count)
    finish_tail = _finisher(view, rule.tail or rule.method, count)

    def run(inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        sums = _sum(buffer(inputs, 0), axes).reshape(shape)
        out = flat_bytes(outputs[0]).reshape(shape)
        finish(sums, 0, body, low, high, out)
        if body < channels:
            finish_tail(sums, body, channels, low, high, out)

    return run


def _axes(view: LayerView, position: int) -> tuple[int, ...]:
    """The reduced axes, sorted, each once."""
    rank, axes = len(view.input(0).shape), view.input(position).data
    if axes is None:
        raise UnsupportedOp(f"{view}: the axes are computed by the graph; only constants are implemented")
    return tuple(sorted({int(axis) % rank for axis in axes.reshape(-1)}))


def _sum(data: Array, axes: tuple[int, ...]) -> NDArray[np.int32]:
    """Sums over ``axes``, flattened in the order of the axes that stay."""
    if not axes:
        return data.reshape(-1).astype(np.int32)
    if axes != tuple(range(axes[0], axes[-1] + 1)):
        kept = [axis for axis in range(data.ndim) if axis not in axes]
        data = np.ascontiguousarray(data.transpose(*kept, *axes))
        axes = tuple(range(len(kept), data.ndim))
    outer, count, inner = (
        math.prod(sizes)
        for sizes in (data.shape[: axes[0]], data.shape[axes[0] : axes[-1] + 1], data.shape[axes[-1] + 1 :])
    )
    sums = np.zeros((outer, inner), np.int32)
    _sum_middle(data.reshape(outer, count, inner), sums)
    return sums


@njit(cache=True, nogil=True)
def _sum_middle(data: Any, sums: Any) -> None:
    """``sums[i, k] = sum over j of data[i, j, k]``; the check bounds the count so that int32 holds it."""
    outer, count, inner = data.shape
    for i in range(outer):
        row = sums[i]
        if inner == 1:
            total = np.int32(0)
            for j in range(count):
                total += np.int32(data[i, j, 0])
            row[0] = total
        else:
            for j in range(count):
                values = data[i, j]
                for k in range(inner):
                    row[k] += np.int32(values[k])


Finish: TypeAlias = Callable[[Array, int, int, int, int, Array], None]
"""(sums [row, channel], first channel, end, low, high, bytes [row, channel]): writes the means."""


def _finisher(view: LayerView, method: Method, count: int) -> Finish:
    """From sums of ``count`` values to means in the output's quantization."""
    data, output = view.input(0), view.output()
    if method == "reference":
        multiplier, shift = fixed_point(data.scale / output.scale, view)
        # The division goes into the multiplier, which first takes on as many more bits as fit.
        more = min(count.bit_length() - 1, 32, 31 + shift)
        divided = (multiplier << more) // count
        return partial(
            _fixed_point_means, count * data.zero_point, divided, shift - more, True, output.zero_point
        )
    scale, out_scale = np.float32(data.scale), np.float32(output.scale)
    if method in ("spatial", "spatial_ruy"):
        # The zero points become one bias, rounded half away from zero on its own.
        offset = np.float32(data.zero_point) * scale / out_scale
        nudge = np.float32(0.5 if offset > 0 else -0.5)
        bias = output.zero_point - int(offset + nudge)
        factor = fixed_point(float(scale / (np.float32(count) * out_scale)), view)
        return partial(_fixed_point_means, 0, *factor, method == "spatial", bias)
    if method == "xnnpack":
        factor32 = scale / out_scale * (np.float32(1) / np.float32(count))
        shift32 = np.float32(data.zero_point) * np.float32(count) * factor32
        return partial(_float_means, factor32, np.float32(output.zero_point) - shift32)
    raise UnsupportedOp(f"{view}: no kernel takes a mean by {method!r}")


@njit(cache=True, nogil=True)
def _fixed_point_means(
    offset: int, multiplier: int, shift: int, away: bool, bias: int,
    sums: Any, begin: int, end: int, low: int, high: int, out: Any,
) -> None:  # fmt: skip
    for row in range(sums.shape[0]):
        for c in range(begin, end):
            value: Any = np.int64(sums[row, c]) - offset
            mean = gemmlowp(value, multiplier, shift) if away else ruy(value, multiplier, shift)
            out[row, c] = np.uint8(min(max(mean + bias, low), high))


@njit(cache=True, nogil=True)
def _float_means(
    factor: Any, constant: Any, sums: Any, begin: int, end: int, low: int, high: int, out: Any
) -> None:
    # Clamping before rounding changes nothing: the bounds are whole.
    floor, ceiling = np.float32(low), np.float32(high)
    for row in range(sums.shape[0]):
        for c in range(begin, end):
            steps = np.float32(np.float32(np.float32(sums[row, c]) * factor) + constant)
            out[row, c] = np.uint8(np.int32(np.rint(min(max(steps, floor), ceiling))))


def prepare_arg_max(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """ARG_MAX and ARG_MIN: the first of equal extremes along one axis."""
    (axis,) = _axes(view, 1)
    data = view.input(0)
    length = data.shape[-1] if data.shape else 1
    if axis == len(data.shape) - 1 and data.dtype in ("int8", "uint8") and 0 < length < _POSITIONS:
        rows = math.prod(data.shape[:-1])
        # Bytes that sort as their values do, or for a minimum the other way round.
        flip = np.uint8((0x80 if data.dtype == "int8" else 0) ^ (0xFF if view.op == "ARG_MIN" else 0))

        def arguments(inputs: Values, outputs: Sequence[Array]) -> tuple[Any, ...]:
            return flat_bytes(buffer(inputs, 0)).reshape(rows, length), flip, outputs[0].reshape(-1)

        return LoopKernel(rows * length // 4, rows, _first_largest, arguments)
    extreme = np.argmax if view.op == "ARG_MAX" else np.argmin

    def run(inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        outputs[0][...] = extreme(operand(inputs, 0), axis=axis)

    return run


_POSITIONS = 1 << 16
"""Positions a number has room for beside a byte, in :func:`_first_largest`."""


@inner_loop
def _first_largest(rows: Any, flip: Any, out: Any, begin: int, end: int) -> None:
    """The largest of numbers made of byte and position: one loop without branches for both."""
    last = np.int32(_POSITIONS - 1)
    for i in range(begin, end):
        row = rows[i]
        largest = np.int32(-1)
        for k in range(row.size):
            position = np.int32(last - np.int32(k))
            largest = max(largest, np.int32(np.int32(np.int32(row[k] ^ flip) << np.int32(16)) | position))
        out[i] = last - (largest & last)
