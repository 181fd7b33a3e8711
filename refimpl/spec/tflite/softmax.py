"""SOFTMAX over the last axis: int8 and uint8 in fixed point or by a float32 table, int16 by tables.

gemmlowp's fixed-point numbers are written ``Qm.n``: an int32 worth ``raw / 2^n``,
m integer bits. Sources: TFLite ``reference_ops::Softmax`` with gemmlowp
``fixedpoint.h``; ``optimized_ops::SoftmaxInt8LUT`` / ``Softmax`` over a table.
"""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import ModelError, UnsupportedOp
from karat24.refimpl.graph import QUANTIZED_RANGE, Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.shared.primitives import (
    multiply_gemmlowp,
    quantize_multiplier,
    round_half_away,
    rounding_divide_by_pot,
    wrap32,
)
from karat24.refimpl.spec.shared.primitives import saturating_rounding_doubling_high_mul as high_mul
from karat24.refimpl.spec.shared.requirements import (
    QUANTIZED,
    operand,
    require,
    require_arity,
    require_dtype,
    require_elements,
    require_quantized,
    require_rank,
    require_same_dtype,
    require_shape,
    require_symmetric,
)
from karat24.refimpl.spec.tflite.expf import expf
from karat24.refimpl.spec.tflite.int16.softmax import softmax_rows

INPUT_INTEGER_BITS = 5
"""Differences from the row's maximum are Q5.26 numbers; below -32 the exponential is 0."""

SUM_INTEGER_BITS = 12
"""The sum of exponentials is a Q12.19 number."""


def check_softmax(view: LayerView) -> None:
    """Input of 1 to 5 dimensions; the output's scale must be 1/256 (within 0.1 %) and its zero
    point the element type's minimum; of int16 1/32768 and 0. Attribute ``beta``, positive."""
    require_arity(view, 1)
    data, output = view.input(0), view.output()
    require_dtype(view, output, QUANTIZED)
    require_same_dtype(view, data, output)
    require_quantized(view, data, output)
    require_rank(view, data, 1, 5)
    require_elements(view, data)
    require_shape(view, output, data.shape)
    require_symmetric(view, data)
    zero_point, scale = QUANTIZED_RANGE[output.dtype][0], 1 / 256
    if output.dtype == "int16":
        zero_point, scale = 0, 1 / 32768
    require(
        view,
        output.zero_point == zero_point and abs(output.scale - scale) <= 0.001 * scale,
        f"output scale {output.scale} and zero point {output.zero_point}; the op's are {scale} and "
        f"{zero_point}",
    )
    beta = view.real("beta")
    if not (math.isfinite(beta) and beta * data.scale * 2**26 > 1):
        raise UnsupportedOp(f"{view}: beta {beta} times the input's scale {data.scale} is below 2^-26")


def softmax(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """SOFTMAX by the rule's method."""
    data = operand(values, 0)
    rows = data.reshape(-1, data.shape[-1]).astype(np.int64)
    if data.dtype == np.int16:
        return SpecResult((_rows_of_int16(view, rows).astype(np.int16).reshape(data.shape),))
    if rule.method == "fixed_point":
        result = [_fixed_point_row(view, row) for row in rows]
    elif rule.method == "float_table":
        table = _exponentials(view)
        result = [_float_row(view, table, row) for row in rows]
    elif rule.method == "uint16_table":
        table = _exponentials_of_16_bits(view)
        result = [_row_of_16_bits(view, table, row) for row in rows]
    else:
        raise ModelError(f"{view}: SOFTMAX by {rule.method!r} is not defined")
    return SpecResult((np.array(result).astype(data.dtype).reshape(data.shape),))


def _rows_of_int16(view: LayerView, rows: Array) -> Array:
    return softmax_rows(rows, view.input(0).scale, float(np.float32(view.real("beta"))))


def _exponentials(view: LayerView) -> Array:
    """float32 ``exp(-beta * scale * d)`` for each difference d = 0 .. 255 from the maximum."""
    step = np.float32(-np.float32(view.input(0).scale)) * np.float32(view.real("beta"))
    return np.array([expf(step * np.float32(d)) for d in range(256)])


def _float_row(view: LayerView, table: Array, row: Array) -> Array:
    """Exponentials, summed in order in float32, times ``1 / (sum * scale)``."""
    output = view.output()
    low, high = QUANTIZED_RANGE[output.dtype]
    exponentials = table[row.max() - row]
    total = np.float32(0.0)
    for value in exponentials:
        total = total + value
    scaled = exponentials * (np.float32(1.0) / (total * np.float32(output.scale)))
    if output.dtype == "uint8":
        stored = np.trunc(scaled + np.float32(0.5)).astype(np.int64)
    else:
        stored = round_half_away(scaled).astype(np.int64) + output.zero_point
    return np.asarray(np.clip(stored, low, high))


def _exponentials_of_16_bits(view: LayerView) -> Array:
    """``exp(-beta * scale * d)`` in steps of 1/65535, d = 0 .. 255. TFLite
    ``PopulateSoftmaxUInt8LookupTable``."""
    step = np.float32(view.input(0).scale) * np.float32(view.real("beta"))
    steps = [int(math.exp(float(step * np.float32(-d))) * 65535 + 0.5) for d in range(256)]
    return np.asarray(np.minimum(np.array(steps), 65535), np.int64)


def _row_of_16_bits(view: LayerView, table: Array, row: Array) -> Array:
    """Exponentials of 16 bits times one Q0.31 multiplier. TFLite ``SoftmaxInt8LUT`` on 64-bit Arm."""
    output = view.output()
    exponentials = table[row.max() - row]
    inverse = np.float32(1.0) / (np.float32(exponentials.sum()) * np.float32(output.scale))
    quotients = multiply_gemmlowp(exponentials, *quantize_multiplier(float(inverse)))
    return np.asarray(np.clip(quotients + output.zero_point, *QUANTIZED_RANGE[output.dtype]))


def _fixed_point_row(view: LayerView, row: Array) -> Array:
    """One row through gemmlowp's exponential and reciprocal.

    From a sum of 512 on, which 512 equal values give, LiteRT's reference kernel aborts its process, since its
    last shift would exceed 31. Here the formula is continued.
    """
    low, high = QUANTIZED_RANGE[view.output().dtype]
    real = float(np.float32(view.real("beta"))) * view.input(0).scale * 2.0 ** (31 - INPUT_INTEGER_BITS)
    multiplier, shift = quantize_multiplier(min(real, 2.0**31 - 1.0))
    # The largest difference whose Q5.26 value does not overflow.
    radius = math.floor((2**INPUT_INTEGER_BITS - 1) * 2.0 ** (31 - INPUT_INTEGER_BITS) / 2.0**shift)
    difference = row - row.max()
    counted = difference >= -radius
    scaled = high_mul(wrap32(np.where(counted, difference, 0) << shift), multiplier)
    exponential = exp_on_negative_values(scaled)
    terms = rounding_divide_by_pot(exponential, SUM_INTEGER_BITS)
    total = int(np.where(counted, terms, 0).sum()) & 0xFFFFFFFF
    reciprocal, bits_over_unit = reciprocal_of_sum(total)
    quotient = rounding_divide_by_pot(high_mul(reciprocal, exponential), bits_over_unit + 31 - 8)
    return np.where(counted, np.clip(quotient + low, low, high), low)


def saturating_shift(x: Array | int, exponent: int) -> Array:
    """``x * 2^exponent``, saturated to int32; a right shift rounds half away. gemmlowp
    ``SaturatingRoundingMultiplyByPOT``."""
    x = np.asarray(x, np.int64)
    if exponent <= 0:
        return rounding_divide_by_pot(x, -exponent)
    return np.asarray(np.clip(x << exponent, -(2**31), 2**31 - 1))


def exp_on_negative_values(x: Array) -> Array:
    """``exp(x)`` for Q5.26 ``x <= 0``, as Q0.31. gemmlowp ``exp_on_negative_values``.

    x is split into a multiple of 1/4 and a remainder in [-1/4, 0). A polynomial gives the
    exponential of the remainder, which each set bit of the multiple multiplies by its
    own constant ``exp(-2^k)``.
    """
    fractional_bits = 31 - INPUT_INTEGER_BITS
    quarter = 1 << (fractional_bits - 2)
    remainder = (x & (quarter - 1)) - quarter
    result = _exp_between_minus_quarter_and_0(saturating_shift(remainder, INPUT_INTEGER_BITS))
    multiple = remainder - x
    constants = (
        (-2, 1672461947), (-1, 1302514674), (0, 790015084), (1, 290630308), (2, 39332535), (3, 720401),
        (4, 242),
    )  # fmt: skip
    for exponent, constant in constants:
        bit = (multiple >> (fractional_bits + exponent)) & 1
        result = np.where(bit == 1, high_mul(result, constant), result)
    return np.where(x == 0, 2**31 - 1, result)


def _exp_between_minus_quarter_and_0(a: Array) -> Array:
    """``exp(a)`` for Q0.31 ``a`` in [-1/4, 0): Taylor around -1/8 to the fourth order."""
    constant_term = 1895147668  # exp(-1/8)
    one_third = 715827883
    x = a + 2**28
    x2 = high_mul(x, x)
    x3 = high_mul(x2, x)
    x4 = high_mul(x2, x2)
    cubic_and_quartic = high_mul(saturating_shift(x4, -2) + x3, one_third)
    terms = saturating_shift(cubic_and_quartic + x2, -1)
    return constant_term + high_mul(constant_term, x + terms)


def reciprocal_of_sum(total: int) -> tuple[int, int]:
    """``1 / total`` for a Q12.19 ``total`` (read as unsigned): ``2^-bits / total`` as a Q0.31 value, and
    ``bits``. TFLite ``GetReciprocal``."""
    headroom = 32 - total.bit_length()
    shifted_minus_one = ((total << headroom) & 0xFFFFFFFF) - 2**31
    return int(one_over_one_plus(shifted_minus_one)), SUM_INTEGER_BITS - headroom


def one_over_one_plus(x: Array | int) -> Array:
    """``1 / (1 + x)`` for Q0.31 ``x`` in [0, 1): Newton on ``(1 + x) / 2``, three steps, in Q2.29.

    gemmlowp ``one_over_one_plus_x_for_x_in_0_1``.
    """
    half_denominator = (np.asarray(x, np.int64) + 2**31) // 2  # rounding half away from zero
    estimate = 1515870810 + high_mul(half_denominator, -1010580540)  # 48/17 - 32/17 * half_denominator
    for _ in range(3):
        error = 2**29 - high_mul(half_denominator, estimate)
        correction = saturating_shift(high_mul(estimate, error), 2)
        estimate = wrap32(estimate + correction)
    return saturating_shift(estimate, 1)
