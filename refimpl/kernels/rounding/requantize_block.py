"""Requantization of 16 channels at a time, in vector registers, for every rounding method.

Numba has no vector type, and a loop over arrays is checked for overlaps at every
pixel; here what belongs to a channel is loaded once and stays in registers for all pixels
of a tile. No instruction of a particular machine: LLVM chooses them.

Both roundings of fixed point are one shift. With p = wrap32(acc << left) * q and e places to the
right after the multiplier's 31, floor(floor(a / 2**31) / 2**e) = floor(a / 2**(31 + e)), so ::

    ruy       (p + 2**30 + 2**(30 + e)) >> (31 + e)
    gemmlowp  the same, 2**31 less where p < 0: ties go away from zero

The sign of p decides as well as that of the high half (p + 2**30) >> 31: they only differ where
that half is 0, which rounds to 0 either way. For e = 0 nothing is rounded twice.
No sum leaves 64 bits, because |p| <= 2**62 and e <= 31.

With one rounding there is no first one: rounding is 2**(30 + e), and no nudge.

Nearly always float32 gives this result in half the instructions. With v = p / 2**(31 + e), the result is
floor(v + 1/2 + nudge), where nudge is ``2**-(1 + e)``, negative for gemmlowp below 0, and 0 for e = 0.
Added to 1.5 * 2**10, zero point and 1/2, v + nudge is rounded to steps of 2**-13, which the low bits of the
sum count; above them stands the result. For what the bounds of a byte leave, accumulator and scale, each
off by 2**-24 of itself at most, make 0.25 steps, their product and the nudge's addition 0.07 each, and the
last rounding 0.5: less than one step. So where the low bits are not all 0, the result is certain. If those of
any of the 16 are, all of them are computed exactly.

Bounds that are those of int8 are left to the instruction that makes int8 and saturates: a float32's bits,
read as a whole number, grow with it, so what is out of bounds stays so, however wrong its low bits are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from karat24.refimpl.kernels.jit.llvm_ir import (
    INT8,
    INT32,
    INT64,
    call,
    fields,
    intrinsic,
    load,
    pointer,
    splat,
    store,
    vector,
)

LANES = 16
"""Channels per block."""

_HALF_LANES = LANES // 2
_INT32_BYTES, _INT64_BYTES = 4, 8
INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1

_BYTES = vector(INT8, LANES)
_SUMS = vector(INT32, LANES)
_PAIRS = vector(INT64, _HALF_LANES)
_SINGLES = vector(ir.FloatType(), LANES)
_DOUBLES = vector(ir.DoubleType(), LANES)

_MAGIC = 3 << 22
"""1.5 * 2**23 as a number: a float32 below 2**22 added to it is rounded to a whole number, half to even,
and stands in the low bits of the sum."""
_MAGIC_BITS = int(np.array([_MAGIC], np.float32).view(np.int32)[0])

_PLACES = 13
_FINE = 3 << (22 - _PLACES)
"""1.5 * 2**10: a float32 below 2**9 added to it is rounded to a multiple of 2**-13."""
_FINE_BITS = int(np.array([_FINE], np.float32).view(np.int32)[0])

_LEAST, _MOST = -128, 127
"""int8"""


class AccumulatorBlock(NamedTuple):
    """Accumulators of a block of LANES channels."""

    address: int
    """The first one, int32."""
    stride: int
    """Bytes from a pixel's to the next pixel's."""
    pixels: int
    """Number of pixels."""


class Bounds(NamedTuple):
    """What a result is clamped to before the zero point is added, int32."""

    low: np.int32
    high: np.int32
    zero_point: np.int32


class ResultBlock(NamedTuple):
    """The bytes of a block's results."""

    address: int
    """The first one."""
    stride: int
    """Bytes from a pixel's to the next pixel's."""
    whole: int
    """Pixels, from the first on, of which all LANES bytes may be written."""
    lanes: int
    """Of the others only the bytes before this one are written."""
    first: int
    """And of these only the bytes from this one on."""


class FixedPointColumns(NamedTuple):
    """Addresses of a block's columns of an ``Epilogue``, LANES elements each."""

    multiplier: int
    left: int
    shift: int
    rounding: int
    rounding_below: int
    scale: int
    nudge: int
    signed: int


@intrinsic
def requantize_fixed_point(_: Any, sums: Any, columns: Any, half: Any, bounds: Any, target: Any) -> Any:
    """Requantizes an ``AccumulatorBlock`` by ``FixedPointColumns`` within ``Bounds`` to a ``ResultBlock``.

    ``half`` is the address of the ``Epilogue``'s, float32.
    """

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> None:
        source, columns, half, bounds, target = arguments
        columns = fields(builder, columns)
        low, high, zero_point = fields(builder, bounds)
        scale, nudge = (load(builder, address, _SINGLES, _INT32_BYTES) for address in columns[5:7])
        nudge = builder.bitcast(nudge, _SUMS)
        signed = load(builder, columns[7], _SUMS, _INT32_BYTES)
        floor, ceiling = (_real(builder, bound, _SINGLES) for bound in (low, high))
        half = load(builder, half, ir.FloatType(), _INT32_BYTES)
        half = builder.fadd(_singles(_FINE), splat(builder, half, LANES))
        all_of_int8 = builder.and_(
            *(
                builder.icmp_signed("==", builder.add(bound, zero_point), ir.Constant(INT32, extreme))
                for bound, extreme in ((low, _LEAST), (high, _MOST))
            )
        )
        low, high = (splat(builder, value, LANES) for value in (low, high))
        places, below, fine = (_whole(n) for n in (_PLACES, (1 << _PLACES) - 1, _FINE_BITS >> _PLACES))

        def rounded(value: Any, bounded: Callable[[Any], Any]) -> Any:
            """Integers with the zero point added; of a result out of bounds, only this is certain."""
            number = builder.sitofp(value, _SINGLES)
            nudged = builder.or_(builder.and_(builder.bitcast(number, _SUMS), signed), nudge)
            operands = [number, scale, builder.bitcast(nudged, _SINGLES)]
            product = bounded(call(builder, f"llvm.fmuladd.v{LANES}f32", _SINGLES, operands))
            offset = builder.fadd(_real(builder, zero_point, _SINGLES), half)
            steps = builder.bitcast(builder.fadd(product, offset), _SUMS)
            nearly = builder.sub(builder.ashr(steps, places), fine)
            doubts = builder.icmp_signed("==", builder.and_(steps, below), _whole(0))
            doubts = builder.bitcast(doubts, ir.IntType(LANES))
            decided = builder.block
            with builder.if_then(builder.icmp_unsigned("!=", doubts, doubts.type(0)), likely=False):
                # Loaded here, since they are rarely needed and would slow short rows elsewhere.
                exactly = _fixed_point_exactly(builder, *columns[:5])
                within = _clamp(builder, exactly(value), low, high, builder.icmp_signed)
                exact = builder.add(within, splat(builder, zero_point, LANES))
                doubted = builder.block
            result = builder.phi(_SUMS)
            result.add_incoming(nearly, decided)
            result.add_incoming(exact, doubted)
            return result

        def saturated(value: Any) -> Any:
            whole = rounded(value, lambda product: product)
            within = _clamp(builder, whole, _whole(_LEAST), _whole(_MOST), builder.icmp_signed)
            return builder.trunc(within, _BYTES)

        def clamped(value: Any) -> Any:
            def bounded(product: Any) -> Any:
                return _clamp(builder, product, floor, ceiling, builder.fcmp_ordered)

            return builder.trunc(rounded(value, bounded), _BYTES)

        with builder.if_else(all_of_int8) as (by_type, by_bounds):
            with by_type:
                _for_pixels(builder, source, target, saturated)
            with by_bounds:
                _for_pixels(builder, source, target, clamped)

    return types.void(sums, columns, types.int64, bounds, target), codegen


def _fixed_point_exactly(builder: Any, multiplier: Any, left: Any, *wide: Any) -> Callable[[Any], Any]:
    """From 16 sums to their results, whole numbers not yet bounded, with these columns of an ``Epilogue``."""
    factors = _halves(builder, load(builder, multiplier, _SUMS, _INT32_BYTES))
    left = load(builder, left, _SUMS, _INT32_BYTES)
    shifts, above, below = (_interleaved(builder, address) for address in wide)
    nothing = ir.Constant(_PAIRS, None)

    def rounded(value: Any) -> Any:
        results = []
        values = _halves(builder, builder.shl(value, left))
        for x, factor, shift, plain, away in zip(values, factors, shifts, above, below, strict=True):
            product = builder.mul(x, factor)
            negative = builder.icmp_signed("<", product, nothing)
            total = builder.ashr(builder.add(product, builder.select(negative, away, plain)), shift)
            # Only what is not shifted left first, and so does not wrap, can leave 32 bits.
            within = _clamp(builder, total, _pairs(INT32_MIN), _pairs(INT32_MAX), builder.icmp_signed)
            results.append(builder.bitcast(within, _SUMS))
        # The low half of each sum: lane 2i from the first eight, lane 2i + 1 from the others.
        order = [lane + (LANES if odd else 0) for lane in range(0, LANES, 2) for odd in range(2)]
        return builder.shuffle_vector(*results, ir.Constant(_SUMS, order))

    return rounded


@intrinsic
def requantize_float32(_: Any, sums: Any, scale: Any, bounds: Any, target: Any) -> Any:
    """Requantizes by a float32 product, rounded half to even; ``scale`` is the address of float32 [LANES].

    Clamping before rounding changes nothing, since the bounds are whole, and leaves small numbers.
    """

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> None:
        source, scale, bounds, target = arguments
        low, high, zero_point = fields(builder, bounds)
        scale = load(builder, scale, _SINGLES, _INT32_BYTES)
        floor, ceiling = (_real(builder, bound, _SINGLES) for bound in (low, high))
        magic = _singles(_MAGIC)
        bits = builder.sub(zero_point, ir.Constant(INT32, _MAGIC_BITS))
        from_bits = splat(builder, bits, LANES)

        def finished(value: Any) -> Any:
            product = builder.fmul(builder.sitofp(value, _SINGLES), scale)
            bounded = _clamp(builder, product, floor, ceiling, builder.fcmp_ordered)
            steps = builder.bitcast(builder.fadd(bounded, magic), _SUMS)
            return builder.trunc(builder.add(steps, from_bits), _BYTES)

        _for_pixels(builder, source, target, finished)

    return types.void(sums, types.int64, bounds, target), codegen


@intrinsic
def requantize_float64(_: Any, sums: Any, scale: Any, bounds: Any, target: Any) -> Any:
    """Requantizes by a float64 product, rounded half away from zero; ``scale`` points to float64 [LANES].

    A product that rounds to no int32 becomes -2**31, and the zero point is added modulo 2**32.
    """

    def codegen(_: Any, builder: Any, __: Any, arguments: Any) -> None:
        source, scale, bounds, target = arguments
        low, high, zero_point = fields(builder, bounds)
        scale = load(builder, scale, _DOUBLES, _INT64_BYTES)
        floor, ceiling = (splat(builder, builder.add(bound, zero_point), LANES) for bound in (low, high))
        # Just below one half: added to the number below one half it stays below one, and to one
        # half it rounds up to one.
        halves = [_doubles(sign * np.nextafter(0.5, 0)) for sign in (-1.0, 1.0)]
        least, beyond = _doubles(-(2.0**31)), _doubles(2.0**31 - 0.5)
        zero_point = splat(builder, zero_point, LANES)

        def finished(value: Any) -> Any:
            product = builder.fmul(builder.sitofp(value, _DOUBLES), scale)
            held = builder.fcmp_ordered("<", product, beyond)
            held = builder.select(held, product, least)
            held = builder.select(builder.fcmp_ordered(">", held, least), held, least)
            half = builder.select(builder.fcmp_ordered("<", held, _doubles(0.0)), *halves)
            whole = builder.fptosi(builder.fadd(held, half), _SUMS)
            within = _clamp(builder, builder.add(whole, zero_point), floor, ceiling, builder.icmp_signed)
            return builder.trunc(within, _BYTES)

        _for_pixels(builder, source, target, finished)

    return types.void(sums, types.int64, bounds, target), codegen


def _for_pixels(builder: Any, source: Any, target: Any, finished: Callable[[Any], Any]) -> None:
    """Writes ``finished`` of the accumulators of every pixel to the ``ResultBlock``."""
    acc, acc_stride, pixels = fields(builder, source)
    out, out_stride, whole, lanes, first = fields(builder, target)

    def result(pixel: Any) -> tuple[Any, Any]:
        at = builder.add(acc, builder.mul(pixel.index, acc_stride))
        value = finished(load(builder, at, _SUMS, _INT32_BYTES))
        return value, builder.add(out, builder.mul(pixel.index, out_stride))

    with cgutils.for_range(builder, whole) as pixel:
        value, at = result(pixel)
        store(builder, value, at, 1)
    order = ir.Constant(_SUMS, list(range(LANES)))
    mask = builder.icmp_signed("<", order, splat(builder, builder.trunc(lanes, INT32), LANES))
    behind = builder.icmp_signed(">=", order, splat(builder, builder.trunc(first, INT32), LANES))
    mask = builder.and_(mask, behind)
    with cgutils.for_range(builder, pixels, start=whole) as pixel:
        value, at = result(pixel)
        _store_lanes(builder, value, at, mask)


def _store_lanes(builder: Any, value: Any, address: Any, mask: Any) -> None:
    """Writes the bytes whose lane the mask has."""
    target = pointer(builder, address, _BYTES)
    operands = [value, target, ir.Constant(INT32, 1), mask]
    call(builder, f"llvm.masked.store.v{LANES}i8.p0", ir.VoidType(), operands)


def _clamp(builder: Any, value: Any, low: Any, high: Any, compare: Callable[..., Any]) -> Any:
    value = builder.select(compare(">", value, low), value, low)
    return builder.select(compare("<", value, high), value, high)


def _real(builder: Any, value: Any, kind: Any) -> Any:
    """An int32 as a floating-point number in every lane."""
    return splat(builder, builder.sitofp(value, kind.element), LANES)


def _singles(value: float) -> Any:
    """A float32 constant in every lane."""
    return ir.Constant(_SINGLES, [value] * LANES)


def _pairs(value: int) -> Any:
    """An int64 constant in every lane of half a block."""
    return ir.Constant(_PAIRS, [value] * _HALF_LANES)


def _doubles(value: float) -> Any:
    """A float64 constant in every lane."""
    return ir.Constant(_DOUBLES, [value] * LANES)


def _whole(value: int) -> Any:
    """An int32 constant in every lane."""
    return ir.Constant(_SUMS, [value] * LANES)


def _halves(builder: Any, values: Any) -> tuple[Any, Any]:
    """The even lanes and the odd ones, as int64 where they stand."""
    pairs = builder.bitcast(values, _PAIRS)
    places = ir.Constant(_PAIRS, [32] * _HALF_LANES)
    return builder.ashr(builder.shl(pairs, places), places), builder.ashr(pairs, places)


def _interleaved(builder: Any, address: Any) -> tuple[Any, Any]:
    """int64 [LANES] in memory as its even elements and its odd ones."""
    whole = load(builder, address, vector(INT64, LANES), _INT64_BYTES)
    nothing = ir.Constant(whole.type, ir.Undefined)
    index = vector(INT32, _HALF_LANES)
    even, odd = (
        builder.shuffle_vector(whole, nothing, ir.Constant(index, list(range(first, LANES, 2))))
        for first in range(2)
    )
    return even, odd
