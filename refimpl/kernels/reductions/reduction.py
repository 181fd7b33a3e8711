"""Reductions along axes: MEAN, ARG_MAX, ARG_MIN."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from karat24.refimpl.contract import Kernel, Target, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.kernels.elementwise.lookup import full_range
from karat24.refimpl.kernels.jit.no_refcount import no_refcount, task_loop
from karat24.refimpl.kernels.jit.operands import buffer, flat_bytes, operand
from karat24.refimpl.kernels.rounding.fixed_point import fixed_point, gemmlowp, ruy
from karat24.refimpl.kernels.rounding.multipliers import combined_scales
from karat24.refimpl.kernels.threads.task_kernel import LoopKernel
from karat24.refimpl.profiles.rules import Method, Rule

_BLOCK = 64
"""Most neighbouring means that one task computes."""

_BYTES_PER_STEP = 8
"""Bytes added up in the time of an elementary step of other loops."""


class Finish(NamedTuple):
    """From a sum to a mean in the output's quantization, not yet bounded.

    In ``fixed`` point ``(sum - offset) * multiplier`` shifted, ties away from zero or upwards, plus ``bias``;
    else ``(sum - offset) * factor + constant`` in float32, rounded half to even, plus ``bias``.
    """

    fixed: bool
    offset: int = 0
    multiplier: int = 0
    shift: int = 0
    away: bool = False
    bias: int = 0
    factor: np.float32 = np.float32(0)
    constant: np.float32 = np.float32(0)


class Means(NamedTuple):
    """How sums ``[i, k]`` become means."""

    blocks: int
    """Blocks of k, each a task for one i."""
    body: int
    """The first k that ``finish_tail`` is for."""
    finish: Finish
    """For k before ``body``."""
    finish_tail: Finish
    """For the rest."""
    low: int
    """Least output."""
    high: int
    """Greatest output."""


def prepare_mean(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """MEAN: sums in int32, then one rescale that also divides by the number of values."""
    data, output = view.input(0), view.output()
    axes = _axes(view, 1)
    count = math.prod(data.shape[axis] for axis in axes)
    low, high = full_range(output.dtype)
    finish = _finisher(view, rule, rule.method, count)
    finish_tail = _finisher(view, rule, rule.tail or rule.method, count)
    apart = axes != tuple(range(axes[0], axes[-1] + 1)) if axes else False
    kept = [axis for axis in range(len(data.shape)) if axis not in axes]
    after = 1 if apart or not axes else math.prod(data.shape[axes[-1] + 1 :])
    # A tail is one of channels, over rows and columns: what is left are the channels.
    body = after if rule.tail is None else after // rule.block * rule.block
    outer, blocks = math.prod(output.shape) // max(after, 1), -(-after // _BLOCK)
    means = Means(blocks, body, finish, finish_tail, low, high)

    def arguments(inputs: Values, outputs: Sequence[Array]) -> tuple[Any, ...]:
        values, out = buffer(inputs, 0).reshape(outer, count, after), flat_bytes(outputs[0])
        sums = np.empty((outer, after), np.int32)
        return values, sums, means, out

    kernel = LoopKernel(
        outer * count * after // _BYTES_PER_STEP + outer * after, outer * blocks, _mean_tasks, arguments
    )
    if not apart:
        return kernel

    def run(inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        kernel([np.ascontiguousarray(operand(inputs, 0).transpose(*kept, *axes))], outputs, accumulator)

    return run


def _axes(view: LayerView, position: int) -> tuple[int, ...]:
    """The reduced axes, sorted, each once."""
    rank, axes = len(view.input(0).shape), view.input(position).known
    if axes is None:
        raise UnsupportedOp(f"{view}: the axes are computed by the graph; only constants are implemented")
    return tuple(sorted({int(axis) % rank for axis in axes.reshape(-1)}))


def _finisher(view: LayerView, rule: Rule, method: Method, count: int) -> Finish:
    """From sums of ``count`` values to means in the output's quantization."""
    data, output = view.input(0), view.output()
    if method == "reference":
        multiplier, shift = fixed_point(data.scale / output.scale, view)
        # The division goes into the multiplier, which first takes on as many more bits as fit.
        more = min(count.bit_length() - 1, 32, 31 + shift)
        divided = (multiplier << more) // count
        return Finish(True, count * data.zero_point, divided, shift - more, True, output.zero_point)
    scale, out_scale = np.float32(data.scale), np.float32(output.scale)
    if method in ("spatial", "spatial_ruy"):
        # The zero points become one bias, rounded half away from zero on its own.
        offset = np.float32(data.zero_point) * scale / out_scale
        nudge = np.float32(0.5 if offset > 0 else -0.5)
        bias = output.zero_point - int(offset + nudge)
        factor = fixed_point(float(scale / (np.float32(count) * out_scale)), view)
        return Finish(True, 0, *factor, method == "spatial", bias)
    if method == "xnnpack":
        factor32 = scale / out_scale * (np.float32(1) / np.float32(count))
        shift32 = np.float32(data.zero_point) * np.float32(count) * factor32
        return Finish(False, factor=factor32, constant=np.float32(output.zero_point) - shift32)
    if method == "float32_half_even":
        share = float(np.reciprocal(np.float32(count)))
        (real,) = combined_scales(data.scale, [share], output.scale, rule.multiplier)
        return Finish(False, count * data.zero_point, bias=output.zero_point, factor=np.float32(real))
    raise UnsupportedOp(f"{view}: no kernel takes a mean by {method!r}")


@task_loop
def _mean_tasks(data: Any, sums: Any, means: Means, out: Any, begin: int, end: int) -> None:
    """``out[i, k]`` = mean over j of ``data[i, j, k]``, for blocks of k.

    The check bounds the count so that int32 holds a sum.
    """
    _, count, inner = data.shape
    for task in range(begin, end):
        i, block = divmod(task, means.blocks)
        first, stop = block * _BLOCK, min((block + 1) * _BLOCK, inner)
        row = sums[i, first:stop]
        if inner == 1:
            total = np.int32(0)
            for j in range(count):
                total += np.int32(data[i, j, 0])
            row[0] = total
        else:
            row[:] = 0
            for j in range(count):
                values = data[i, j, first:stop]
                for k in range(row.size):
                    row[k] += np.int32(values[k])
        results = out[i * inner + first : i * inner + stop]
        whole = min(max(means.body - first, 0), row.size)
        _means(row[:whole], means.finish, means.low, means.high, results[:whole])
        _means(row[whole:], means.finish_tail, means.low, means.high, results[whole:])


@no_refcount
def _means(sums: Any, f: Finish, low: int, high: int, out: Any) -> None:
    if f.fixed:
        for k in range(sums.size):
            value: Any = np.int64(sums[k]) - f.offset
            mean = gemmlowp(value, f.multiplier, f.shift) if f.away else ruy(value, f.multiplier, f.shift)
            out[k] = np.uint8(min(max(mean + f.bias, low), high))
        return
    # Clamping before rounding changes nothing: the bounds are whole.
    floor, ceiling = np.float32(low - f.bias), np.float32(high - f.bias)
    for k in range(sums.size):
        total = np.float32(np.int64(sums[k]) - f.offset)
        steps = np.float32(np.float32(total * f.factor) + f.constant)
        out[k] = np.uint8(np.int32(np.rint(min(max(steps, floor), ceiling))) + f.bias)


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


@task_loop
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
