"""The natural logarithm of a fixed-point number of 1 or more.

Source: TFLite ``kernels/internal/common.h``, ``log_x_for_x_greater_than_or_equal_to_1_impl``.
"""

from __future__ import annotations

from karat24.refimpl.spec.shared.primitives import saturating_rounding_doubling_high_mul
from karat24.refimpl.spec.tflite.softmax import SUM_INTEGER_BITS, one_over_one_plus, saturating_shift

OUTPUT_INTEGER_BITS = 5

LOG_2 = 1488522236
SQRT_HALF = 1518500250
FOURTH_ROOT_OF_HALF = 1805811301
ONE_QUARTER = 1 << 29
ALPHA_N, ALPHA_D, ALPHA_I, ALPHA_F = 117049297, 127690142, 1057819769, 638450708
"""Coefficients of a quotient of polynomials around sqrt(sqrt(1/2)). All constants are Q0.31."""


def log_of_sum(total: int) -> int:
    """``log(total)`` in Q5.26 of a Q12.19 ``total`` of at least 1.

    ``total = 2^z * r`` with r near sqrt(sqrt(1/2)), so that the result is ``z log 2 + log r``. Of two such r,
    half an octave apart, the smaller is taken, with the larger z (moved by a quarter).
    """
    quarter = ONE_QUARTER >> OUTPUT_INTEGER_BITS
    zeros = _leading_zeros(total)
    normal = _shifted(total, zeros - 1)
    r_first = _shifted(_product(normal, SQRT_HALF), 1)
    z_first = _saturated(_shifted(SUM_INTEGER_BITS - zeros, 31 - OUTPUT_INTEGER_BITS) + quarter)
    headroom = _leading_zeros(_product(total, SQRT_HALF)) - 1
    r_second = _shifted(total, headroom)
    z_second = _saturated(_shifted(SUM_INTEGER_BITS - headroom, 31 - OUTPUT_INTEGER_BITS) - quarter)
    r, z = min(r_first, r_second), max(z_first, z_second)

    middle = (r + FOURTH_ROOT_OF_HALF + 1) // 2
    q = 2 * (r - FOURTH_ROOT_OF_HALF)
    square = _product(q, q)
    numerator = _product(q, r) + _product(_product(q, square), ALPHA_N)
    denominator = _product(middle, ALPHA_I + q + _product(ALPHA_D, square)) + _product(ALPHA_F, q)
    scaled = _shifted(numerator, -OUTPUT_INTEGER_BITS)
    return _product(z, LOG_2) + _product(scaled, int(one_over_one_plus(denominator)))


def _leading_zeros(x: int) -> int:
    """The number of leading zeros of a 32-bit word."""
    return 32 - x.bit_length()


def _product(a: int, b: int) -> int:
    return int(saturating_rounding_doubling_high_mul(a, b))


def _shifted(x: int, exponent: int) -> int:
    return int(saturating_shift(x, exponent))


def _saturated(x: int) -> int:
    return max(-(2**31), min(x, 2**31 - 1))
