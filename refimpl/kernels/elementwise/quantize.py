"""QUANTIZE and DEQUANTIZE: float32 to int8/uint8, between the two, and back to float32."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from karat24.refimpl.contract import Kernel, Target, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.kernels.elementwise.activations import coarse, ratio32
from karat24.refimpl.kernels.elementwise.lookup import Lookup, Tables, byte_values, clamped_bytes, full_range
from karat24.refimpl.kernels.jit.no_refcount import no_refcount, task_loop
from karat24.refimpl.kernels.jit.operands import buffer, flat_bytes, operand
from karat24.refimpl.kernels.jit.packed_call import TaskLoop
from karat24.refimpl.kernels.jit.wrapping_int32 import add32, sub32
from karat24.refimpl.kernels.rounding.fixed_point import INT32_MIN, fixed_point, rescale, wrap32
from karat24.refimpl.kernels.rounding.multipliers import combined_scales, rounded_products
from karat24.refimpl.kernels.threads.layer_sequence import BoundLayer
from karat24.refimpl.kernels.threads.task_kernel import LoopKernel
from karat24.refimpl.profiles.rules import Method, Rule

_DIVIDE_32, _DIVIDE_64, _RECIPROCAL = 0, 1, 2
_FLOAT_METHODS: dict[Method, int] = {
    "divide_float32": _DIVIDE_32,
    "divide_float64": _DIVIDE_64,
    "reciprocal_half_even": _RECIPROCAL,
}


def prepare_quantize(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """QUANTIZE, from float32 or from int8/uint8 (a rescale)."""
    if view.input(0).dtype == "float32":
        return _from_float(view, rule)
    return _rescaled(view, rule)


def _from_float(view: LayerView, rule: Rule) -> Kernel:
    output = view.output()
    size = math.prod(output.shape)
    method, tail = _float_method(view, rule.method), _float_method(view, rule.tail or rule.method)
    body = size // rule.block * rule.block if rule.tail is not None else size
    scale, zero_point = np.float32(output.scale), output.zero_point
    low, high = full_range(output.dtype)
    quantizer = Quantizer(method, rule.overflow == "saturates", scale, zero_point, low, high)

    def whole(inputs: Values, outputs: Sequence[Array]) -> tuple[Any, ...]:
        return buffer(inputs, 0).reshape(-1), quantizer, flat_bytes(outputs[0])

    if body == size and method != _DIVIDE_64:
        ordinary = Ordinary(
            method == _DIVIDE_32, scale, np.float32(1) / scale, np.float32(low - zero_point),
            np.float32(high - zero_point), np.int32(zero_point),
        )  # fmt: skip

        def in_blocks(inputs: Values, outputs: Sequence[Array]) -> tuple[Any, ...]:
            return ordinary, *whole(inputs, outputs)

        return LoopKernel(size // 4, size, _quantize_in_blocks, in_blocks)
    if body == size:
        return LoopKernel(size, size, _quantize, whole)

    loop = TaskLoop(_quantize)

    def run(inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        values, out = buffer(inputs, 0).reshape(-1), flat_bytes(outputs[0])
        for part, by in ((slice(body), method), (slice(body, None), tail)):
            arguments = values[part], quantizer._replace(method=by), out[part]
            BoundLayer(loop, arguments, out[part].size, out[part].size)()

    return run


def _float_method(view: LayerView, method: Method) -> int:
    if method not in _FLOAT_METHODS:
        raise UnsupportedOp(f"{view}: no kernel quantizes float32 by {method!r}")
    return _FLOAT_METHODS[method]


class Quantizer(NamedTuple):
    """``value / scale`` rounded, plus the zero point, clamped to ``[low, high]``."""

    method: int
    """_DIVIDE_32, _DIVIDE_64 or _RECIPROCAL: how the quotient is computed and rounded."""
    saturates: bool
    """True clamps before converting to int32; False converts what does not fit to the lowest, as x86."""
    scale: np.float32
    """The output's scale."""
    zero_point: int
    """The output's zero point."""
    low: int
    """Least output."""
    high: int
    """Greatest output."""


@task_loop
def _quantize(values: Any, q: Any, out: Any, begin: int, end: int) -> None:
    """Elements ``begin`` … ``end - 1`` by a ``Quantizer``, whatever their size."""
    reciprocal = np.float32(1) / q.scale
    floor, ceiling = np.float64(q.low - q.zero_point), np.float64(q.high - q.zero_point)
    for i in range(begin, end):
        if q.method == _DIVIDE_32:
            steps = _half_away(np.float64(np.float32(values[i] / q.scale)))
        elif q.method == _DIVIDE_64:
            steps = _half_away(np.float64(values[i]) / np.float64(q.scale))
        else:
            steps = np.float64(np.rint(np.float32(values[i] * reciprocal)))
        if q.saturates:
            steps = steps if steps < ceiling else ceiling  # a NaN, too
            steps = steps if steps > floor else floor
        # What no int32 holds, x86 converts to the lowest one; the zero point then wraps.
        whole: Any = INT32_MIN
        if -2147483648.0 <= steps < 2147483648.0:
            whole = np.int64(steps)
        out[i] = np.uint8(min(max(wrap32(whole + q.zero_point), q.low), q.high))


class Ordinary(NamedTuple):
    """Constants that quantize a number of ordinary size, by ``scale`` or its reciprocal, between bounds."""

    divides: bool
    scale: np.float32
    reciprocal: np.float32
    low: np.float32
    high: np.float32
    zero_point: np.int32


_ORDINARY = np.float32(1 << 22)
"""Steps below this are rounded in float32, and fit an int32 with any zero point."""

_BLOCK = 256
"""Number of elements that are all computed once more if one of them is not ordinary."""


@task_loop
def _quantize_in_blocks(ordinary: Any, values: Any, quantizer: Any, out: Any, begin: int, end: int) -> None:
    """As :func:`_quantize`, in blocks; that function computes those with a number that is not ordinary."""
    for first in range(begin, end, _BLOCK):
        last = min(first + _BLOCK, end)
        if ordinary.divides:
            others = _divide(ordinary, values, out, first, last)
        else:
            others = _multiply(ordinary, values, out, first, last)
        if others:
            _quantize(values, quantizer, out, first, last)


@no_refcount
def _divide(o: Any, values: Any, out: Any, begin: int, end: int) -> int:
    """Rounds quotients half away from zero; returns the number of those that were not ordinary.

    Clamping before rounding changes nothing, since the bounds are whole. Adding the float32 just below 1/2
    rounds half away from zero: a fraction below 1/2 stays below 1, and 1/2 becomes 1.
    """
    half, none = np.float32(0.49999997), np.int32(0)
    others: Any = none
    source, target = values[begin:end], out[begin:end]
    for i in range(target.size):
        steps = source[i] / o.scale
        others = add32(others, none if abs(steps) < _ORDINARY else np.int32(1))
        steps = steps if steps < o.high else o.high
        steps = steps if steps > o.low else o.low
        steps = np.float32(steps + (half if steps > np.float32(0) else -half))
        target[i] = np.uint8(add32(np.int32(steps), o.zero_point))
    return int(others)


@no_refcount
def _multiply(o: Any, values: Any, out: Any, begin: int, end: int) -> int:
    """Rounds products with the reciprocal half to even; returns the number that were not ordinary."""
    none = np.int32(0)
    others: Any = none
    source, target = values[begin:end], out[begin:end]
    for i in range(target.size):
        steps = source[i] * o.reciprocal
        others = add32(others, none if abs(steps) < _ORDINARY else np.int32(1))
        steps = steps if steps < o.high else o.high
        steps = steps if steps > o.low else o.low
        target[i] = np.uint8(add32(np.int32(np.rint(steps)), o.zero_point))
    return int(others)


@no_refcount
def _half_away(x: Any) -> Any:
    """A float64 rounded half away from zero; from 2**52 on there is nothing to round."""
    if not abs(x) < 4503599627370496.0:
        return x
    whole = np.trunc(x)
    return whole + np.trunc((x - whole) * 2.0)  # twice the fraction truncates to -1, 0 or 1


def _rescaled(view: LayerView, rule: Rule) -> Kernel:
    """int8/uint8 to int8/uint8: a table per rounding method."""
    blocks = _rescale_table(view, rule, rule.method)
    if rule.tail is None:
        return Lookup(Tables.single(blocks))
    rest = _rescale_table(view, rule, rule.tail)
    return Lookup(Tables.mixed(blocks, rest, rule.block, math.prod(view.output().shape)))


def _rescale_table(view: LayerView, rule: Rule, method: Method) -> Array:
    input_, output = view.input(0), view.output()
    centred = byte_values(input_.dtype) - input_.zero_point
    if method == "xnnpack":
        scaled = coarse(centred, ratio32(view))
    elif method == "float32_half_even":
        (real,) = combined_scales(input_.scale, [1.0], output.scale, rule.multiplier)
        scaled = rounded_products(centred, np.float32(real))
    else:
        real = input_.scale / output.scale  # both float32 values: a float64 division
        scaled = rescale(centred, fixed_point(real, view), method)
    return clamped_bytes(scaled + output.zero_point, *full_range(output.dtype))


def prepare_dequantize(view: LayerView, rule: Rule, target: Target) -> Kernel:
    """DEQUANTIZE to float32: f32(s*(x-z)), or in blocks f32(f32(x*s) + f32(-z*s))."""
    size = math.prod(view.output().shape)
    if view.input(0).dtype == "int16":
        return _dequantize_int16(view, rule, size)
    values = byte_values(view.input(0).dtype)
    blocks = _reals(view, rule.method, values)
    if rule.tail is None:
        return _scaling(view, blocks) or Lookup(Tables.single(blocks))
    return Lookup(Tables.mixed(blocks, _reals(view, rule.tail, values), rule.block, size))


def _scaling(view: LayerView, table: NDArray[np.float32]) -> Kernel | None:
    """A kernel that multiplies instead of looking up, eight times as fast; None where the table differs."""
    flip = 128 if view.input(0).dtype == "int8" else 0
    offset, scale = np.int32(flip + view.input(0).zero_point), np.float32(view.input(0).scale)
    every, reals = np.arange(256, dtype=np.uint8), np.empty(256, np.float32)
    scale_bytes(every, np.uint8(flip), offset, scale, reals, 0, 256)
    if reals.tobytes() != table.tobytes():
        return None

    def arguments(inputs: Values, outputs: Sequence[Array]) -> tuple[Any, ...]:
        return flat_bytes(buffer(inputs, 0)), np.uint8(flip), offset, scale, outputs[0].reshape(-1)

    size = math.prod(view.output().shape)
    return LoopKernel(size // 4, size, scale_bytes, arguments)


@no_refcount
def scale_bytes(values: Any, flip: Any, offset: Any, scale: Any, out: Any, begin: int, end: int) -> None:
    """``float32((byte ^ flip) - offset) * scale`` of elements ``begin`` … ``end - 1``."""
    source, target = values[begin:end], out[begin:end]
    for i in range(target.size):
        target[i] = np.float32(sub32(source[i] ^ flip, offset)) * scale


def _dequantize_int16(view: LayerView, rule: Rule, size: int) -> Kernel:
    body = size if rule.tail is None else size // rule.block * rule.block

    def run(inputs: Values, outputs: Sequence[Array], accumulator: Array | None) -> None:
        values, out = operand(inputs, 0).reshape(-1).astype(np.int64), outputs[0].reshape(-1)
        out[:body] = _reals(view, rule.method, values[:body])
        if body < size:
            out[body:] = _reals(view, rule.tail or rule.method, values[body:])

    return run


def _reals(view: LayerView, method: Method, values: NDArray[np.int64]) -> NDArray[np.float32]:
    """What each stored value stands for; x and x - z have at most 17 bits, exact in float32."""
    scale, zero_point = np.float32(view.input(0).scale), view.input(0).zero_point
    with np.errstate(over="ignore"):
        if method == "reference":
            return (values - zero_point).astype(np.float32) * scale
        if method == "affine_float32":
            return values.astype(np.float32) * scale + np.float32(-zero_point) * scale
    raise UnsupportedOp(f"{view}: no kernel dequantizes by {method!r}")
