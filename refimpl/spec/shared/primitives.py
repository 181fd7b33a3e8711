"""The plain arithmetic every spec shares: multipliers, rounding, clamps, blocks and tails.

Integers are NumPy int64, so nothing overflows unless :func:`wrap32` says so;
where a runtime computes in float32 every operand is an explicit float32 and the
operations are written one by one in the runtime's order. Sources: TensorFlow
Lite / LiteRT 2.3.0 ``kernels/internal/common.h``, gemmlowp ``fixedpoint.h``,
ruy ``apply_multiplier``, XNNPACK ``requantization``; each verified bit for bit
against the runtimes that ``karat24.refimpl.profiles.tflite.table`` names.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from karat24.refimpl.errors import ModelError, UnsupportedOp
from karat24.refimpl.graph import QUANTIZED_RANGE, Array
from karat24.refimpl.profiles.rules import Clamp, Method, Multiplier, Rule

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


def wrap32(x: Array | int) -> Array:
    """``x`` modulo 2^32 as a signed value, what an int32 register keeps. int64 in and out."""
    return ((np.asarray(x, np.int64) + 2**31) & 0xFFFFFFFF) - 2**31


def wrap16(x: Array | int) -> Array:
    """``x`` modulo 2^16 as a signed value, what an int16 register keeps. int64 in and out."""
    return ((np.asarray(x, np.int64) + 2**15) & 0xFFFF) - 2**15


def round_half_away(x: Array | np.floating[Any] | float) -> Array:
    """Rounds to the nearest integer, ties away from zero (C ``round``), in ``x``'s own float type."""
    x = np.asarray(x)
    whole = np.trunc(x)
    with np.errstate(invalid="ignore"):
        fraction = np.abs(x - whole)
    return np.where(fraction >= 0.5, whole + np.sign(x), whole).astype(x.dtype)


def to_int32(x: Array) -> Array:
    """Whole floating-point numbers as int32 values, held in int64, as x86 converts them.

    Out of range, infinite or not a number gives -2^31 (``cvttss2si``); C leaves that undefined.
    """
    with np.errstate(invalid="ignore"):
        inside = (x >= -(2.0**31)) & (x < 2.0**31)
        return np.where(inside, np.where(inside, x, 0).astype(np.int64), INT32_MIN)


def to_nearest_int32(x: Array) -> Array:
    """Whole floating-point numbers as int32 values, held in int64, as Arm converts them: beyond int32 the
    nearest one, and 0 for what is not a number."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isnan(x), 0, np.clip(x.astype(np.float64), INT32_MIN, INT32_MAX)).astype(np.int64)


def quantize_multiplier(real: float) -> tuple[int, int]:
    """``(multiplier, shift)`` with ``real ≈ multiplier * 2^(shift - 31)``.

    ``|multiplier|`` is 0 or lies in [2^30, 2^31); a positive shift is a left shift
    (TFLite's sign). Below 2^-32 the result is (0, 0). Source: TFLite
    ``QuantizeMultiplier``. Raises UnsupportedOp when ``real`` is not finite.
    """
    if not math.isfinite(real):
        raise UnsupportedOp(f"effective multiplier {real} is not finite")
    if real == 0.0:
        return 0, 0
    fraction, shift = math.frexp(real)
    scaled = abs(fraction) * 2.0**31  # exact: 53 significant bits, at least 22 of them fractional
    multiplier = math.floor(scaled + 0.5)
    if multiplier == 2**31:
        multiplier //= 2
        shift += 1
    if shift < -31:
        return 0, 0
    return (multiplier if real > 0 else -multiplier), shift


def quantize_multipliers(reals: Array | float) -> tuple[Array, Array]:
    """:func:`quantize_multiplier` of every element: two int64 arrays of the same shape."""
    reals = np.asarray(reals)
    pairs = [quantize_multiplier(float(real)) for real in reals.reshape(-1)]
    multipliers = np.array([multiplier for multiplier, _ in pairs], np.int64).reshape(reals.shape)
    shifts = np.array([shift for _, shift in pairs], np.int64).reshape(reals.shape)
    return multipliers, shifts


def effective_multiplier(
    how: Multiplier, scale_in: float, scale_filter: Array | np.floating[Any] | float, scale_out: float
) -> Array:
    """``s_in * s_filter / s_out`` as the rule says, shaped like ``scale_filter``.

    ``float64``: all in float64. ``float32_product``: the product rounded to float32, the division in float64.
    ``float32``: both in float32 (the result is a float32 array). ``float32_reciprocal``: the float32 product
    times ``1 / s_out``, in float32 too. The scales are float32 values. Use ``scale_filter=1.0`` for a plain
    ratio.
    """
    s_in, s_filter, s_out = np.float32(scale_in), np.asarray(scale_filter, np.float32), np.float32(scale_out)
    with np.errstate(over="ignore", under="ignore"):
        if how == "float64":
            return np.asarray(np.float64(s_in) * s_filter.astype(np.float64) / np.float64(s_out))
        if how == "float32_product":
            return np.asarray((s_in * s_filter).astype(np.float64) / np.float64(s_out))
        if how == "float32":
            return np.asarray(s_in * s_filter / s_out, np.float32)
        if how == "float32_reciprocal":
            return np.asarray(s_in * s_filter * (np.float32(1) / s_out), np.float32)
    raise ModelError(f"no effective multiplier is defined for {how!r}")


def saturating_rounding_doubling_high_mul(a: Array | int, b: Array | int) -> Array:
    """``a * b / 2^31`` of two int32 values, rounded half up, saturated at 2^31 - 1.

    gemmlowp adds a nudge of the product's sign and truncates toward zero, which
    is rounding half up: ``trunc((ab + 1 - 2^30) / 2^31) = floor((ab + 2^30) / 2^31)``
    for ``ab < 0``.
    """
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    return np.asarray(np.minimum((product + 2**30) >> 31, INT32_MAX), np.int64)


def rounding_divide_by_pot(x: Array | int, exponent: Array | int) -> Array:
    """``x / 2^exponent`` rounded half away from zero; ``0 <= exponent <= 31``. Source: gemmlowp."""
    x, exponent = np.asarray(x, np.int64), np.asarray(exponent, np.int64)
    mask = (np.int64(1) << exponent) - 1
    remainder = x & mask
    threshold = (mask >> 1) + (x < 0)
    return np.asarray((x >> exponent) + (remainder > threshold), np.int64)


def half_up_shift(x: Array | int, exponent: Array | int) -> Array:
    """``x / 2^exponent`` rounded half up (toward plus infinity); ``0 <= exponent <= 62``."""
    x, exponent = np.asarray(x, np.int64), np.asarray(exponent, np.int64)
    half = (np.int64(1) << exponent) >> 1
    return np.asarray((x + half) >> exponent, np.int64)


def multiply_gemmlowp(x: Array | int, multiplier: Array | int, shift: Array | int) -> Array:
    """``x * multiplier * 2^(shift - 31)``, rounded twice: half up, then half away from zero.

    Source: TFLite ``MultiplyByQuantizedMultiplier`` (double rounding). ``x`` is an
    int32 value held in int64; a left shift wraps as int32 does.
    """
    shift = np.asarray(shift, np.int64)
    widened = wrap32(np.asarray(x, np.int64) << np.maximum(shift, 0))
    return rounding_divide_by_pot(
        saturating_rounding_doubling_high_mul(widened, multiplier), np.maximum(-shift, 0)
    )


def multiply_gemmlowp_saturating(x: Array | int, multiplier: Array | int, shift: Array | int) -> Array:
    """:func:`multiply_gemmlowp`, except that a left shift saturates at int32's ends.

    Source: gemmlowp's output stage ``OutputStageScaleInt32ByFixedPointAndExponent`` and its ``ShiftLeft``.
    """
    shift = np.asarray(shift, np.int64)
    widened = np.clip(np.asarray(x, np.int64) << np.maximum(shift, 0), INT32_MIN, INT32_MAX)
    return rounding_divide_by_pot(
        saturating_rounding_doubling_high_mul(widened, multiplier), np.maximum(-shift, 0)
    )


def multiply_ruy(x: Array | int, multiplier: Array | int, shift: Array | int) -> Array:
    """``x * multiplier * 2^(shift - 31)``, rounded twice, both half up.

    Source: ruy's x86 kernels and LiteRT's NEON bodies compiled through SSE.
    """
    shift = np.asarray(shift, np.int64)
    widened = wrap32(np.asarray(x, np.int64) << np.maximum(shift, 0))
    return half_up_shift(saturating_rounding_doubling_high_mul(widened, multiplier), np.maximum(-shift, 0))


def multiply_single_rounding(x: Array | int, multiplier: Array | int, shift: Array | int) -> Array:
    """``x * multiplier * 2^(shift - 31)``, rounded half up once.

    Source: ruy's arm64 kernels, which shift left until at least one place is left to be shifted right;
    that shift wraps as int32 does.
    """
    shift = np.asarray(shift, np.int64)
    left = np.maximum(shift + 1, 0)
    product = wrap32(np.asarray(x, np.int64) << left) * np.asarray(multiplier, np.int64)
    return half_up_shift(product, 31 + left - shift)


def multiply_rndnu(x: Array | int, multiplier: Array | int, shift: Array | int) -> Array:
    """``x * multiplier * 2^(shift - 31)``, rounded half up once, saturated to int32.

    Source: XNNPACK ``rndnu`` requantization, the NEON kernels' form of float32 scales.
    """
    product = np.asarray(x, np.int64) * np.asarray(multiplier, np.int64)
    return np.clip(half_up_shift(product, 31 - np.asarray(shift, np.int64)), INT32_MIN, INT32_MAX)


def multiply_q15(x: Array | int, multiplier: Array | int, shift: Array | int) -> Array:
    """``x * multiplier * 2^(shift - 31)`` of an int64 ``x``, rounded half up once, kept in 32 bits.

    The multiplier loses its lower 16 bits first, rounded half up and no more than ``2^15 - 1``.
    Source: TFLite ``MultiplyByQuantizedMultiplier`` of an int64; the product wraps as int64 does.
    """
    multiplier, total_shift = np.asarray(multiplier, np.int64), 15 - np.asarray(shift, np.int64)
    reduced = np.minimum((multiplier + 2**15) >> 16, 2**15 - 1)
    with np.errstate(over="ignore"):
        product = np.asarray(x, np.int64) * reduced + (np.int64(1) << (total_shift - 1))
    return wrap32(product >> total_shift)


def multiply_float32(acc: Array, scale: Array | float, low: int, high: int) -> Array:
    """``rint(float32(acc) * float32(scale))``, the product clamped to ``[low, high]`` first.

    ``low`` and ``high`` are the clamp without the zero point. int64 out.
    Source: XNNPACK ``fp32`` requantization.
    """
    product = np.asarray(acc, np.int64).astype(np.float32) * np.asarray(scale, np.float32)
    return np.rint(np.clip(product, np.float32(low), np.float32(high))).astype(np.int64)


def multiply_float64(acc: Array, scale: Array | float, saturates: bool = False) -> Array:
    """``round_half_away(float64(acc) * scale)`` as int64; what no int32 holds becomes -2^31, or with
    ``saturates`` the nearest int32.

    Source: LiteRT 2.3 reference FULLY_CONNECTED, whose conversion to int32 C leaves undefined beyond
    int32; the values are those of x86-64's instruction ``cvttsd2si`` and of Arm's ``fcvtzs``.
    """
    product = np.asarray(acc, np.int64).astype(np.float64) * np.asarray(scale, np.float64)
    rounded = np.asarray(round_half_away(product), np.float64)
    return to_nearest_int32(rounded) if saturates else to_int32(rounded)


_BY_MULTIPLIER: dict[Method, Callable[[Array, Array, Array], Array]] = {
    "gemmlowp": multiply_gemmlowp,
    "gemmlowp_saturating": multiply_gemmlowp_saturating,
    "ruy": multiply_ruy,
    "single_rounding": multiply_single_rounding,
    "rndnu": multiply_rndnu,
    "q15": multiply_q15,
}


def multiply(
    method: Method, acc: Array, effective: Array | float, zero_point: int, low: int, high: int
) -> Array:
    """``acc * effective + zero_point`` clamped to ``[low, high]``, rounded as ``method`` says.

    ``acc`` holds int32 values, of any size for ``q15`` and ``float64_half_away``; ``effective``
    broadcasts against it (one per output channel along the last axis, or one for all). int64 out.
    To a float64 product the zero point is added in an int32, which wraps.
    """
    if method == "float32_half_even":
        scaled = multiply_float32(acc, effective, low - zero_point, high - zero_point)
    elif method in ("float64_half_away", "float64_saturating"):
        whole = multiply_float64(acc, effective, method == "float64_saturating")
        return np.asarray(np.clip(wrap32(whole + zero_point), low, high), np.int64)
    elif method in _BY_MULTIPLIER:
        scaled = _BY_MULTIPLIER[method](acc, *quantize_multipliers(effective))
    else:
        raise UnsupportedOp(f"requantization by {method!r} is not defined")
    return np.asarray(np.clip(scaled + zero_point, low, high), np.int64)


def requantize(
    acc: Array,
    effective: Array | float,
    rule: Rule,
    zero_point: int,
    low: int,
    high: int,
    run: int | None = None,
) -> Array:
    """:func:`multiply` with the rule's method in whole blocks and its tail method behind them."""
    return in_blocks(
        rule, acc.shape, lambda method: multiply(method, acc, effective, zero_point, low, high), run
    )


def body_mask(shape: tuple[int, ...], rule: Rule, run: int | None = None) -> Array:
    """Which elements of an array of ``shape`` lie in whole blocks: a boolean array of ``shape``.

    ``channel``: the first ``block * (C // block)`` indices of the innermost
    dimension. ``flat``: the same over the flattened array, or over each run of
    ``run`` consecutive elements of it.
    """
    if rule.block_axis == "none" or rule.tail is None:
        return np.ones(shape, bool)
    elements = math.prod(shape)
    if rule.block_axis == "channel":
        run = shape[-1] if shape else 1
    elif run is None:
        run = elements
    if elements == 0:
        return np.ones(shape, bool)
    position = np.arange(elements) % run
    return np.asarray((position < run // rule.block * rule.block).reshape(shape))


def in_blocks(
    rule: Rule, shape: tuple[int, ...], compute: Callable[[Method], Array], run: int | None = None
) -> Array:
    """``compute(rule.method)`` in whole blocks, ``compute(rule.tail)`` behind them.

    ``compute`` takes a method and returns an array of ``shape``; see :func:`body_mask`.
    """
    body = compute(rule.method)
    if rule.tail is None or rule.block_axis == "none":
        return body
    return np.where(body_mask(shape, rule, run), body, compute(rule.tail))


ACTIVATION_BOUNDS: dict[str, tuple[float, float]] = {
    "NONE": (-math.inf, math.inf),
    "RELU": (0.0, math.inf),
    "RELU_N1_TO_1": (-1.0, 1.0),
    "RELU6": (0.0, 6.0),
}
"""Real-valued bounds of each fused activation."""


def quantize_bound(real: float, scale: float, zero_point: int, clamp: Clamp) -> int:
    """The quantized value of an activation bound (not yet clamped to the element type).

    ``half_away``: ``zero_point + round_half_away(f32(real / scale))`` (TFLite).
    ``half_even``: ``rint(f32(f32(real / scale) + zero_point))`` (XNNPACK).
    ``reciprocal``: ``zero_point + rint(f32(real * f32(1 / scale)))`` (Edge TPU).
    """
    with np.errstate(over="ignore"):
        if clamp == "reciprocal":
            ratio = np.float32(real) * (np.float32(1) / np.float32(scale))
        else:
            ratio = np.float32(real) / np.float32(scale)
    ratio = np.float32(min(max(float(ratio), -(2.0**30)), 2.0**30))
    if clamp == "half_even":
        return int(np.rint(ratio + np.float32(zero_point)))
    if clamp == "reciprocal":
        return zero_point + int(np.rint(ratio))
    return zero_point + int(round_half_away(ratio))


def activation_range(
    activation: str, scale: float, zero_point: int, dtype: str, clamp: Clamp
) -> tuple[int, int]:
    """``(low, high)`` that a fused activation and the output's element type leave."""
    low, high = QUANTIZED_RANGE[dtype]
    real_low, real_high = ACTIVATION_BOUNDS[activation]
    if math.isfinite(real_low):
        low = max(low, quantize_bound(real_low, scale, zero_point, clamp))
    if math.isfinite(real_high):
        high = min(high, quantize_bound(real_high, scale, zero_point, clamp))
    return low, high
