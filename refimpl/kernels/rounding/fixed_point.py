"""Integer scalars the compiled loops are built from: gemmlowp's fixed-point arithmetic.

Every value is an int32 held in an int64, so that nothing overflows on the way;
``wrap32`` stands where the runtimes' registers would. A Q0.31 ``multiplier`` m
and a ``shift`` e (positive is left) stand for the real number m * 2**(e - 31).
Sources: gemmlowp ``fixedpoint/fixedpoint.h``, TFLite ``kernels/internal/common.h``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import LayerView
from karat24.refimpl.kernels.rounding.multipliers import fixed_point_multipliers
from karat24.refimpl.profiles.rules import Method

INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1

_WAYS: tuple[Method, ...] = ("gemmlowp", "ruy", "rndnu")
"""Roundings of :func:`rescale`."""

# exp(-2**k) as Q0.31 for k = -2 .. 4: what the bits of an exponent multiply together.
_EXP_OF_BIT = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
_EXP_OF_MINUS_EIGHTH = 1895147668
_ONE_THIRD = 715827883
_48_OVER_17 = 1515870810
_MINUS_32_OVER_17 = -1010580540
_HALF_SQRT_2 = 1518500250


@njit(cache=True, nogil=True)
def wrap32(x: int) -> int:
    """``x`` modulo 2**32, as a signed number."""
    return ((x + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)


@njit(cache=True, nogil=True)
def doubling_high_mul(a: int, b: int) -> int:
    """``a * b / 2**31`` rounded half up; saturates where both are -2**31."""
    return min((a * b + (1 << 30)) >> 31, INT32_MAX)


@njit(cache=True, nogil=True)
def divide_by_pot(x: int, exponent: int) -> int:
    """``x / 2**exponent`` rounded half away from zero, 0 <= exponent <= 31."""
    if exponent == 0:
        return x
    # Half up, except that a tie below zero must go down: x - 1 moves only ties across.
    return (x + (1 << (exponent - 1)) - (1 if x < 0 else 0)) >> exponent


@njit(cache=True, nogil=True)
def multiply_by_pot(x: int, exponent: int) -> int:
    """``x * 2**exponent``, saturated to int32; a negative exponent rounds half away from zero."""
    if exponent <= 0:
        return divide_by_pot(x, -exponent)
    return min(max(x << exponent, INT32_MIN), INT32_MAX)


@njit(cache=True, nogil=True)
def gemmlowp(x: int, multiplier: int, shift: int) -> int:
    """``x * multiplier * 2**(shift - 31)``, rounded half up, then half away from zero."""
    high = doubling_high_mul(wrap32(x << max(shift, 0)), multiplier)
    return divide_by_pot(high, max(-shift, 0))


@njit(cache=True, nogil=True)
def ruy(x: int, multiplier: int, shift: int) -> int:
    """``x * multiplier * 2**(shift - 31)``, rounded half up twice."""
    high = doubling_high_mul(wrap32(x << max(shift, 0)), multiplier)
    right = max(-shift, 0)
    return (high + ((1 << right) >> 1)) >> right


@njit(cache=True, nogil=True)
def rounded_once(x: int, multiplier: int, shift: int) -> int:
    """``x * multiplier * 2**(shift - 31)`` of an ``x`` that needs no wrapping, rounded half up once."""
    return (x * multiplier + (1 << (30 - shift))) >> (31 - shift)


@njit(cache=True, nogil=True)
def exp_of_negative(x: int) -> int:
    """exp(x / 2**26) as Q0.31, for x <= 0 (Q5.26). Source: gemmlowp ``exp_on_negative_values``."""
    if x == 0:
        return INT32_MAX
    quarter = 1 << 24
    # x = a - rest with a in [-1/4, 0) and rest a multiple of 1/4, whose bits pick the factors.
    a = (x & (quarter - 1)) - quarter
    rest = a - x
    # Fourth-order Taylor polynomial around -1/8, in Q0.31.
    t = (a << 5) + (1 << 28)
    t2 = doubling_high_mul(t, t)
    t3 = doubling_high_mul(t2, t)
    t4 = doubling_high_mul(t2, t2)
    cubic = doubling_high_mul(divide_by_pot(t4, 2) + t3, _ONE_THIRD)
    polynomial = t + divide_by_pot(cubic + t2, 1)
    result = _EXP_OF_MINUS_EIGHTH + doubling_high_mul(_EXP_OF_MINUS_EIGHTH, polynomial)
    for bit in range(7):
        if (rest >> (24 + bit)) & 1:
            result = doubling_high_mul(result, _EXP_OF_BIT[bit])
    return result


@njit(cache=True, nogil=True)
def bit_length(x: int) -> int:
    """Bits of ``x >= 0``: 0 for 0, 32 for 2**31."""
    bits = 0
    while x:
        x >>= 1
        bits += 1
    return bits


@njit(cache=True, nogil=True)
def reciprocal(x: int, integer_bits: int) -> tuple[int, int]:
    """``(r, n)`` with 1 / real(x) = r / 2**31 / 2**n, for x > 0 with ``integer_bits`` integer bits.

    Three Newton steps on 1 / (1 + f) for x = 2**n * (1 + f). Source: TFLite
    ``GetReciprocal``, gemmlowp ``one_over_one_plus_x_for_x_in_0_1``.
    """
    headroom = 32 - bit_length(x)
    fraction = ((x << headroom) & 0xFFFFFFFF) - (1 << 31)
    total = fraction + INT32_MAX  # >= 0, so halving rounds half away as half up
    half_denominator = (total + 1) >> 1
    estimate = _48_OVER_17 + doubling_high_mul(half_denominator, _MINUS_32_OVER_17)
    for _ in range(3):
        error = (1 << 29) - doubling_high_mul(half_denominator, estimate)
        estimate = wrap32(estimate + multiply_by_pot(doubling_high_mul(estimate, error), 2))
    return multiply_by_pot(estimate, 1), integer_bits - headroom


@njit(cache=True, nogil=True)
def inverse_square_root(x: int) -> tuple[int, int]:
    """``(multiplier, shift)`` of 1 / sqrt(x), x >= 0; x <= 1 gives (almost) one.

    Five Newton steps in Q3.28. Source: TFLite ``GetInvSqrtQuantizedMultiplierExp``.
    """
    if x <= 1:
        return INT32_MAX, 0
    right = 11
    while x >= 1 << 29:
        x //= 4
        right += 1
    pairs = (32 - bit_length(x) - 1) // 2 - 1  # bits shifted in pairs, two head bits are left
    right -= pairs
    x <<= 2 * pairs
    half_x = divide_by_pot(x >> 1, 1)
    three_halves = (1 << 28) + (1 << 27)
    root = 1 << 28
    for _ in range(5):
        cube = multiply_by_pot(doubling_high_mul(doubling_high_mul(root, root), root), 6)
        step = doubling_high_mul(three_halves, root) - doubling_high_mul(half_x, cube)
        root = multiply_by_pot(step, 3)
    root = doubling_high_mul(root, _HALF_SQRT_2)
    if right < 0:
        return root << -right, 0
    return root, -right


@njit(cache=True, nogil=True)
def _rescale(values: Any, multiplier: int, shift: int, way: int, out: Any) -> None:
    for i in range(values.size):
        if way == 0:
            out[i] = gemmlowp(values[i], multiplier, shift)
        elif way == 1:
            out[i] = ruy(values[i], multiplier, shift)
        else:
            out[i] = rounded_once(values[i], multiplier, shift)


def rescale(values: NDArray[np.int64], multiplier: tuple[int, int], method: Method) -> NDArray[np.int64]:
    """Every value times a ``(multiplier, shift)``, by ``gemmlowp``, ``ruy`` or ``rndnu``; same shape.

    ``rndnu`` saturates beyond 32 bits, which no output keeps: it is left out here.
    """
    if method not in _WAYS:
        raise UnsupportedOp(f"no fixed-point kernel rounds by {method!r}")
    flat = np.ascontiguousarray(values, np.int64).reshape(-1)
    out = np.empty_like(flat)
    _rescale(flat, multiplier[0], multiplier[1], _WAYS.index(method), out)
    return out.reshape(np.shape(values))


def fixed_point(real: float, view: LayerView) -> tuple[int, int]:
    """One non-negative real number as ``(multiplier, shift)``; refuses what shifts an int32 out of itself."""
    multipliers, shifts = fixed_point_multipliers(np.array([real], np.float64), view)
    return int(multipliers[0]), int(shifts[0])
