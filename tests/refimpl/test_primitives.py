"""The specs' plain arithmetic at the values where roundings, ranges and runtimes part."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.profiles.rules import Method, Rule
from karat24.refimpl.profiles.tflite.broadcast import InnerLoop, inner_loop
from karat24.refimpl.spec.shared.primitives import (
    activation_range,
    body_mask,
    effective_multiplier,
    half_up_shift,
    multiply,
    multiply_gemmlowp,
    multiply_gemmlowp_saturating,
    multiply_ruy,
    quantize_multiplier,
    round_half_away,
    rounding_divide_by_pot,
    saturating_rounding_doubling_high_mul,
    to_int32,
    wrap16,
    wrap32,
)

EDGES = sorted(
    {sign * (2**power + step) for power in range(31) for step in (-1, 0, 1) for sign in (-1, 1)}
    | {-(2**31), 2**31 - 1}
)
"""Powers of two and their neighbours: uniform numbers hit none of them."""


@pytest.mark.parametrize(
    ("real", "expected"),
    [
        (0.0, (0, 0)),
        (1.0, (2**30, 1)),
        (0.5, (2**30, 0)),
        (0.25, (2**30, -1)),
        (np.nextafter(1.0, 0.0), (2**30, 1)),  # rounds up to 2^31, which carries into the shift
        (-0.5, (-(2**30), 0)),
        (2.0**-32, (2**30, -31)),
        (2.0**-33, (0, 0)),  # below what a shift of 31 reaches
        (3.0, (3 * 2**29, 2)),
    ],
)
def test_quantize_multiplier(real: float, expected: tuple[int, int]) -> None:
    assert quantize_multiplier(real) == expected


def test_a_multiplier_that_is_not_finite_is_refused() -> None:
    with pytest.raises(UnsupportedOp, match="inf"):
        quantize_multiplier(float("inf"))


def test_doubling_high_multiply_rounds_half_up_and_saturates_once() -> None:
    for a in EDGES:
        for b in EDGES:
            exact = (2 * a * b + 2**31) // 2**32  # floor(ab / 2^31 + 1/2)
            got = int(saturating_rounding_doubling_high_mul(a, b))
            assert got == min(exact, 2**31 - 1), (a, b)


def test_the_two_shifts_differ_on_negative_ties_only() -> None:
    for x in EDGES:
        for exponent in (0, 1, 2, 7, 30, 31):
            exact = Fraction(x, 2**exponent)
            away, up = int(rounding_divide_by_pot(x, exponent)), int(half_up_shift(x, exponent))
            assert abs(exact - away) <= Fraction(1, 2)
            assert abs(exact - up) <= Fraction(1, 2)
            tie = exact - int(exact // 1) == Fraction(1, 2)
            assert (away != up) == (tie and x < 0), (x, exponent)


def test_a_left_shift_wraps_as_int32() -> None:
    # 2^30 << 2 leaves nothing; (2^30 + 1) << 2 leaves 4, times one half.
    assert int(multiply_gemmlowp(2**30, 2**30, 2)) == 0
    assert int(multiply_ruy(2**30 + 1, 2**30, 2)) == 2


def test_a_left_shift_of_gemmlowps_own_products_saturates() -> None:
    acc = np.array([2**29 - 1, 2**29, -(2**29), -(2**29) - 1])
    scaled = multiply_gemmlowp_saturating(acc, 2**30, 2)
    assert scaled.tolist() == [2**30 - 2, 2**30, -(2**30), -(2**30)]


@pytest.mark.parametrize(
    ("method", "at_minus_half", "at_half", "at_two_and_a_half"),
    [
        ("gemmlowp", -1, 1, 3),
        ("gemmlowp_saturating", -1, 1, 3),
        ("ruy", 0, 1, 3),
        ("single_rounding", 0, 1, 3),
        ("rndnu", 0, 1, 3),
        ("float32_half_even", 0, 0, 2),
        ("float64_half_away", -1, 1, 3),
    ],
)
def test_each_method_on_exact_ties(
    method: Method, at_minus_half: int, at_half: int, at_two_and_a_half: int
) -> None:
    acc = np.array([-64, 64, 320])  # times 2^-7
    result = multiply(method, acc, 2.0**-7, 0, -128, 127)
    assert result.tolist() == [at_minus_half, at_half, at_two_and_a_half]


def test_float32_loses_accumulators_beyond_24_bits() -> None:
    acc = np.array([2**24 + 1])
    assert multiply("float32_half_even", acc, 1.0, -(2**24), -128, 127).tolist() == [0]
    assert multiply("float64_half_away", acc, 1.0, -(2**24), -128, 127).tolist() == [1]


@pytest.mark.parametrize(("method", "highest"), [("float64_half_away", -128), ("float64_saturating", 127)])
def test_float64_products_beyond_int32_are_what_the_processor_makes_of_them(
    method: Method, highest: int
) -> None:
    """x86-64 converts both to -2^31 and Arm to the nearest int32; the largest int32 is the same on both."""
    acc = np.array([2**31 - 1, 2**31, -(2**31) - 1])
    assert multiply(method, acc, 1.0, 0, -128, 127).tolist() == [127, highest, -128]


def test_effective_multipliers_of_the_same_scales_differ() -> None:
    scales = (0.1, 0.2, 0.3)
    rounded = tuple(float(np.float32(scale)) for scale in scales)
    in_double = rounded[0] * rounded[1] / rounded[2]
    assert float(effective_multiplier("float64", *rounded)) == in_double
    product = float(np.float32(np.float32(0.1) * np.float32(0.2)))
    assert float(effective_multiplier("float32_product", *rounded)) == product / rounded[2] != in_double
    single = effective_multiplier("float32", *rounded)
    assert single.dtype == np.float32
    assert float(single) not in (in_double, product / rounded[2])


def test_activation_bounds_on_a_tie_of_an_odd_zero_point() -> None:
    # 6 / 4 = 1.5 steps: rounded away from zero, then 1 added; or 1 added first, then to even.
    assert activation_range("RELU6", 4.0, 1, "int8", "half_away") == (1, 3)
    assert activation_range("RELU6", 4.0, 1, "int8", "half_even") == (1, 2)
    assert activation_range("RELU6", 4.0, 2, "int8", "half_even") == (2, 4)
    assert activation_range("RELU_N1_TO_1", 0.001, 0, "uint8", "half_away") == (0, 255)
    assert activation_range("NONE", 4.0, 1, "uint8", "half_away") == (0, 255)


def test_floats_become_int32_as_x86_converts_them() -> None:
    values = np.array([0.0, -3.0, 2**31 - 128, 2**31, -(2**31), 3e38, -np.inf, np.nan], np.float32)
    low = -(2**31)
    assert to_int32(values).tolist() == [0, -3, 2**31 - 128, low, low, low, low, low]


def test_rounding_half_away_keeps_the_type_and_sees_one_below_a_half() -> None:
    below = np.nextafter(np.float32(0.5), np.float32(0))
    rounded = round_half_away(np.array([0.5, -0.5, 1.5, below], np.float32))
    assert rounded.dtype == np.float32
    assert rounded.tolist() == [1.0, -1.0, 2.0, 0.0]


def test_registers_wrap() -> None:
    assert [int(wrap32(x)) for x in (2**31, -(2**31) - 1, 2**32 + 5)] == [-(2**31), 2**31 - 1, 5]
    assert [int(wrap16(x)) for x in (2**15, -(2**15) - 1, 2**16 + 5)] == [-(2**15), 2**15 - 1, 5]


def test_blocks_end_where_the_rule_says() -> None:
    by_channel = Rule("ruy", tail="gemmlowp", block=8, block_axis="channel")
    assert body_mask((2, 9), by_channel).tolist() == [[True] * 8 + [False]] * 2
    flat = Rule("ruy", tail="gemmlowp", block=8, block_axis="flat")
    assert body_mask((2, 9), flat).sum() == 16
    assert body_mask((2, 9), flat, run=9).tolist() == [[True] * 8 + [False]] * 2
    assert body_mask((2, 9), Rule("ruy")).all()


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ((2, 3, 5), (2, 3, 5), InnerLoop("elementwise", 30)),
        ((1, 2, 3), (2, 3), InnerLoop("elementwise", 6)),  # equal once the rank is
        ((2, 3, 5), (1,), InnerLoop("scalar", 30)),
        ((), (3, 4), InnerLoop("scalar", 12)),
        ((2, 3, 5), (5,), InnerLoop("elementwise", 5)),
        ((2, 3, 5), (2, 3, 1), InnerLoop("scalar", 5)),
        ((4, 3, 1), (4, 1, 5), InnerLoop("scalar", 5)),
        ((4, 3, 7), (4, 1, 7), InnerLoop("elementwise", 7)),
        ((4, 3, 1, 1), (4, 1, 5, 1), InnerLoop("scalar", 5)),  # sizes of one on both sides do not count
        ((2, 1, 3, 1), (1, 5, 1, 7), InnerLoop("general", 1)),  # alternates more often than five folds do
    ],
)
def test_inner_loops_of_broadcasts(
    left: tuple[int, ...], right: tuple[int, ...], expected: InnerLoop
) -> None:
    for shapes in ((left, right), (right, left)):
        builder = GraphBuilder()
        operands = [builder.input(f"in{i}", shape, "float32") for i, shape in enumerate(shapes)]
        output = builder.tensor("out", np.broadcast_shapes(*shapes), "float32")
        builder.layer("ADD", operands, [output])
        assert inner_loop(builder.build([output]).view(0)) == expected
