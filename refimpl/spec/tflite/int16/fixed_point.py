"""gemmlowp's tanh and logistic of int16 raw values, each of which stands for ``raw / 2^n``.

``Qm.n`` has m integer bits and n = 15 - m. Source: gemmlowp ``fixedpoint.h`` with ``std::int16_t``.
"""

from __future__ import annotations

import numpy as np

from karat24.refimpl.graph import Array
from karat24.refimpl.spec.shared.primitives import rounding_divide_by_pot, wrap16

ONE = 2**15 - 1
"""The Q0.15 value nearest to 1."""


def logistic(data: Array) -> Array:
    """``1 / (1 + exp(-x))`` of Q3.12 values held in int64, as Q0.15."""
    positive = _one_over_one_plus(_exp_on_negative_values(wrap16(-np.abs(data)), 3))
    return np.where(data == 0, 1 << 14, np.where(data > 0, positive, ONE - positive))


def tanh(data: Array, integer_bits: int = 3) -> Array:
    """``tanh(x)`` of values of 0 to 6 integer bits held in int64, as Q0.15."""
    magnitude = _one_minus_over_one_plus(_exp_on_negative_values(wrap16(-np.abs(data)), integer_bits + 1))
    return np.where(data == 0, 0, np.where(data > 0, magnitude, -magnitude))


def saturating_shift(x: Array, exponent: int) -> Array:
    """``x * 2^exponent``, saturated to int16; a right shift rounds half away from zero."""
    if exponent <= 0:
        return rounding_divide_by_pot(x, -exponent)
    return np.asarray(np.clip(x << exponent, -(2**15), 2**15 - 1))


def _high_mul(a: Array | int, b: Array | int) -> Array:
    """``a * b / 2^15`` rounded half up, saturated."""
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    return np.asarray(np.minimum((product + 2**14) >> 15, ONE))


def _constant(raw: int) -> int:
    """A constant of gemmlowp's, given in 32 bits, rounded to 16."""
    return (raw + 2**15) >> 16


def _exp_on_negative_values(x: Array, integer_bits: int) -> Array:
    """``exp(x)`` for x <= 0 with ``integer_bits``, as Q0.15: a polynomial of the remainder below 1/4, and a
    factor ``exp(-2^k)`` for each set bit of the multiple of 1/4. Below -32 it is 0."""
    fractional_bits = 15 - integer_bits
    quarter = 1 << (fractional_bits - 2)
    remainder = (x & (quarter - 1)) - quarter
    result = _exp_between_minus_quarter_and_0(saturating_shift(remainder, integer_bits))
    multiple = remainder - x
    factors = (
        (-2, 1672461947), (-1, 1302514674), (0, 790015084), (1, 290630308), (2, 39332535), (3, 720401),
        (4, 242),
    )  # fmt: skip
    for exponent, raw in factors:
        if exponent < integer_bits:
            bit = (multiple >> (fractional_bits + exponent)) & 1
            result = np.where(bit == 1, _high_mul(result, _constant(raw)), result)
    if integer_bits > 5:
        result = np.where(x < -(32 << fractional_bits), 0, result)
    return np.where(x == 0, ONE, result)


def _exp_between_minus_quarter_and_0(a: Array) -> Array:
    """``exp(a)`` for Q0.15 ``a`` in [-1/4, 0): Taylor around -1/8 to the fourth order."""
    constant_term = _constant(1895147668)  # exp(-1/8)
    x = a + 2**12
    x2 = _high_mul(x, x)
    x3, x4 = _high_mul(x2, x), _high_mul(x2, x2)
    cubic_and_quartic = _high_mul(saturating_shift(x4, -2) + x3, _constant(715827883))  # 1/3
    terms = saturating_shift(cubic_and_quartic + x2, -1)
    return np.asarray(np.clip(constant_term + _high_mul(constant_term, x + terms), -(2**15), ONE))


def _reciprocal(x: Array) -> Array:
    """``2 / (1 + x)`` for Q0.15 ``x`` in [0, 1], as Q2.13: three Newton steps on ``(1 + x) / 2``."""
    half_denominator = (x + ONE + 1) // 2
    estimate = _constant(1515870810) + _high_mul(half_denominator, _constant(-1010580540))
    for _ in range(3):
        error = 2**13 - _high_mul(half_denominator, estimate)
        estimate = wrap16(estimate + saturating_shift(_high_mul(estimate, error), 2))
    return estimate


def _one_over_one_plus(x: Array) -> Array:
    """``1 / (1 + x)``, as Q0.15."""
    return saturating_shift(_reciprocal(x), 1)


def _one_minus_over_one_plus(x: Array) -> Array:
    """``(1 - x) / (1 + x)``, as Q0.15."""
    return saturating_shift(_reciprocal(x) - 2**13, 2)
