"""The kernels' fixed-point scalars against the specs' own, on values where two roundings differ."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from karat24.refimpl.graph import Array
from karat24.refimpl.kernels.rounding import fixed_point
from karat24.refimpl.spec.shared import primitives
from karat24.refimpl.spec.tflite import l2_normalization, softmax

NEAR_POWERS = sorted(
    {
        sign * ((1 << k) + off)
        for k in range(32)
        for off in (-1, 0, 1)
        for sign in (-1, 1)
        if (1 << k) + off < 1 << 31
    }
    | {-(1 << 31), (1 << 31) - 1}
)
"""Powers of two and their neighbours: ties, carries and saturations of an int32."""

MULTIPLIERS = [1 << 30, (1 << 30) + 1, 3 << 29, 0x55555555, (1 << 31) - 1, 0]


@pytest.mark.parametrize("shift", range(-31, 31))
def test_both_rescalings_equal_the_spec(shift: int) -> None:
    values = np.array(NEAR_POWERS, np.int64)
    ties = (np.arange(-40, 41) << 1) + 1 << max(-shift - 1, 0)  # odd multiples of half the last bit
    values = np.concatenate([values, ties[np.abs(ties) < 1 << 31]])
    for multiplier in MULTIPLIERS:
        for method, spec in (("gemmlowp", primitives.multiply_gemmlowp), ("ruy", primitives.multiply_ruy)):
            result = fixed_point.rescale(values, (multiplier, shift), method)
            np.testing.assert_array_equal(result, spec(values, multiplier, shift), err_msg=method)


def test_the_two_rescalings_differ_on_a_tie_below_zero() -> None:
    # -3 * 2^30 * 2^(1 - 31) / 2 = -1.5: half away gives -2, half up -1.
    tie = np.array([-3])
    assert fixed_point.rescale(tie, (1 << 30, 0), "gemmlowp").tolist() == [-1]  # the first rounding goes up
    halves = np.array([-6])
    assert fixed_point.rescale(halves, (1 << 30, -1), "gemmlowp").tolist() == [-2]
    assert fixed_point.rescale(halves, (1 << 30, -1), "ruy").tolist() == [-1]


def test_doubling_high_mul_and_pot_shifts_equal_the_spec() -> None:
    for a, b in itertools.product(NEAR_POWERS, NEAR_POWERS):
        assert fixed_point.doubling_high_mul(a, b) == min((a * b + 2**30) >> 31, 2**31 - 1)
    for x, exponent in itertools.product(NEAR_POWERS, range(-31, 32)):
        assert fixed_point.multiply_by_pot(x, exponent) == l2_normalization._times_power_of_two(x, exponent)


def test_exponential_equals_the_spec() -> None:
    # Every quarter's edges (the bits that pick factors) and a spread between them.
    edges = [-(quarter << 24) + off for quarter in range(128) for off in (-1, 0, 1)]
    values = [v for v in (*edges, *range(-(1 << 31), 0, 1_234_567)) if -(1 << 31) <= v <= 0]
    expected = softmax.exp_on_negative_values(np.array(values, np.int64))
    assert [fixed_point.exp_of_negative(v) for v in values] == expected.tolist()


def sums() -> Array:
    return np.unique([n for n in NEAR_POWERS if n > 0] + list(range(1, 1 << 31, 98_765_431)))


def test_reciprocal_equals_the_spec() -> None:
    for total in sums().tolist():
        assert fixed_point.reciprocal(total, 12) == softmax.reciprocal_of_sum(total)


def test_inverse_square_root_equals_the_spec() -> None:
    for square in (0, *range(1, 2000), *sums().tolist()):
        assert fixed_point.inverse_square_root(square) == l2_normalization.inverse_square_root(square)
