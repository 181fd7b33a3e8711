"""Rounding to powers of two, their codes, and batch normalization in scales."""

from __future__ import annotations

import math

import numpy as np
import pytest

from karat24.export.quantize.powers_of_two import (
    BatchNorm,
    PowersOfTwo,
    decode,
    encode,
    fold,
    memory,
    powers_for,
    round_filter,
    types_that_hold,
)
from karat24.export.quantize.powers_of_two.rounding import leading_exponent
from karat24.refimpl.errors import ModelError, UsageError

SPANS = {2: 0, 3: 1, 4: 3, 5: 7, 6: 15, 7: 31, 8: 63, 9: 127}
VALUES = {2: 3, 3: 5, 4: 9, 5: 17, 6: 33, 7: 65, 8: 129, 9: 257}


def normal(number: int, deviation: float = 0.05, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(number) * deviation).astype(np.float32)


@pytest.mark.parametrize(
    ("magnitude", "exponent"), [(1, 0), (0.75, 0), (0.7499, -1), (1.5, 1), (1.4999, 0), (0.3, -2), (4, 2)]
)
def test_leading_exponent_turns_at_three_quarters(magnitude: float, exponent: int) -> None:
    assert leading_exponent(magnitude) == exponent
    assert powers_for(np.array([-magnitude, 0.0]), 3).greatest == exponent


def test_leading_exponent_needs_no_logarithm() -> None:
    """On, just below and just above 1.5 * 2^p for every exponent of float32, subnormal ones too."""
    for exponent in range(-148, 127):
        turn = math.ldexp(1.5, exponent)
        assert leading_exponent(turn) == exponent + 1
        assert leading_exponent(math.nextafter(turn, 0)) == exponent
        assert leading_exponent(math.ldexp(1.0, exponent)) == exponent


@pytest.mark.parametrize("bits", SPANS)
def test_number_of_values_and_span(bits: int) -> None:
    powers = powers_for(np.array([0.3]), bits)
    assert (powers.greatest, powers.span) == (-2, SPANS[bits])
    assert len(powers.values) == len(set(powers.values)) == VALUES[bits]
    assert powers.values == tuple(sorted(powers.values))
    assert powers.code_bits == bits
    assert powers.exponent_bits == bits - 2


THREE_BITS = [
    (0.9, 1), (0.75, 1), (0.7499, 0.5), (0.375, 0.5), (0.25, 0.5), (0.2499, 0), (-0.75, -1),
]  # fmt: skip
FIVE_BITS = [
    (0.3, 0.25), (-0.19, -0.25), (0.1875, 0.25), (0.1874, 0.125), (2**-10, 2**-9), (0.99 * 2**-10, 0),
    (1.5 * 2**-10, 2**-9),
]  # fmt: skip


@pytest.mark.parametrize(("bits", "cases"), [(3, THREE_BITS), (5, FIVE_BITS)])
def test_ties_go_up_and_half_the_least_power_is_not_zero(bits: int, cases: list[tuple[float, float]]) -> None:
    weights = np.array([weight for weight, _ in cases])
    powers = powers_for(weights, bits)
    assert (powers.greatest, powers.least) == {3: (0, -1), 5: (-2, -9)}[bits]
    assert round_filter(weights, powers).real.tolist() == [value for _, value in cases]


@pytest.mark.parametrize("bits", SPANS)
def test_each_weight_goes_to_the_nearest_value(bits: int) -> None:
    """Against a search of the whole set; among two equally near, the greater magnitude."""
    weights = np.concatenate([normal(500), [0.0], powers_for(normal(500), bits).values]).astype(np.float32)
    powers = powers_for(weights, bits)
    found = round_filter(weights, powers).real.astype(np.float64)
    for weight, value in zip(weights.astype(np.float64), found, strict=True):
        best = min(powers.values, key=lambda v: (abs(v - weight), -abs(v)))
        assert value == best


def test_weights_that_grew_are_held_at_the_greatest_power() -> None:
    """Retraining may carry a weight over 1.5 * 2^n1: it neither becomes 0 nor leaves the set."""
    powers = PowersOfTwo(-3, 0)
    assert round_filter(np.array([1.5, -7.0, 1e30]), powers).real.tolist() == [1, -1, 1]


def test_a_filter_of_the_set_stays_as_it_is() -> None:
    for bits in SPANS:
        first = round_filter(normal(300), powers_for(normal(300), bits))
        again = round_filter(first.real, powers_for(first.real, bits))
        assert again.powers == first.powers
        assert np.array_equal(again.real, first.real)


def test_from_six_bits_on_wider_codes_change_hardly_a_weight() -> None:
    """20,000 weights of N(0, 0.05): what separates 6 from 9 bits is nothing but code length."""
    weights = normal(20_000, seed=1)
    filters = {bits: round_filter(weights, powers_for(weights, bits)) for bits in SPANS}
    rounded = {bits: filter_.real for bits, filter_ in filters.items()}
    error = {bits: np.linalg.norm(rounded[bits] - weights) / np.linalg.norm(weights) for bits in (4, 5, 6)}
    assert error == pytest.approx({4: 0.226, 5: 0.195, 6: 0.195}, abs=3e-3)
    zeros = [filters[bits].zero_share for bits in (4, 5, 6)]
    assert zeros == pytest.approx([0.24, 0.014, 0], abs=5e-3)
    differing = [int(np.count_nonzero(rounded[b] != rounded[b + 1])) for b in range(4, 9)]
    assert 6000 < differing[0] < 7500
    assert 300 < differing[1] < 600
    assert differing[2] <= 3
    assert differing[3:] == [0, 0]


def test_a_narrow_span_costs_five_bits_little() -> None:
    """max_span=6 leaves 15 values and 4-bit codes; weights below 2^(n2 - 1) become 0, nothing is clipped."""
    weights = normal(20_000, seed=2)
    full, narrow = powers_for(weights, 5), powers_for(weights, 5, max_span=6)
    assert (narrow.span, narrow.greatest, narrow.code_bits, len(narrow.values)) == (6, full.greatest, 4, 15)
    errors = [
        np.linalg.norm(round_filter(weights, powers).real - weights) / np.linalg.norm(weights)
        for powers in (full, narrow)
    ]
    assert 0.19 < errors[0] <= errors[1] < errors[0] + 1e-3 < 0.2
    assert round_filter(weights, full).zero_share < round_filter(weights, narrow).zero_share < 0.04
    assert powers_for(weights, 3, max_span=6) == powers_for(weights, 3)


def test_greatest_exponent_can_be_given() -> None:
    """With the exponent of 4.0 a four-bit layer of weights below 1/4 is all zeros."""
    weights = np.array([0.24, -0.1])
    assert powers_for(weights, 4, greatest=2) == PowersOfTwo(-1, 2)
    assert not round_filter(weights, PowersOfTwo(-1, 2)).real.any()


def test_zeros_extremes_and_empty_filters() -> None:
    assert not round_filter(np.zeros((2, 3)), powers_for(np.zeros((2, 3)), 5)).real.any()
    assert powers_for(np.zeros((0, 3)), 4).greatest == 0
    least = np.float32(2.0**-149)
    subnormal = round_filter(np.array([least, 2**-140.0]), powers_for(np.array([2**-140.0]), 9))
    assert subnormal.real.tolist() == [least, 2**-140.0]
    assert subnormal.real.dtype == np.float32


@pytest.mark.parametrize(("weights", "options", "error"), [
    ([1.0], {"bits": 1}, UsageError), ([1.0], {"bits": 10}, UsageError),
    ([1.0], {"bits": 4, "max_span": -1}, UsageError), ([math.nan], {"bits": 4}, ModelError),
    ([-math.inf], {"bits": 4}, ModelError), ([3.4e38], {"bits": 4}, ModelError),
])  # fmt: skip
def test_what_has_no_set_is_refused(weights: list[float], options: dict[str, int], error: type) -> None:
    with pytest.raises(error):
        powers_for(np.array(weights, np.float32), **options)


@pytest.mark.parametrize(("bits", "factor"), [(5, 6.4), (7, 4.57), (8, 4.0), (9, 3.556)])
def test_codes_of_fixed_length_are_32_over_b_times_smaller(bits: int, factor: float) -> None:
    weights = normal(100)
    found = memory(round_filter(weights, powers_for(weights, bits))).fixed_factor
    assert found == 32 / bits
    assert found == pytest.approx(factor, abs=0.005)


@pytest.mark.parametrize("bits", SPANS)
def test_code_of_variable_length(bits: int) -> None:
    """b - (b - 1) z bits a weight; the code itself is as long as counted, and read back whole."""
    weights = np.append(normal(997), [0.0, 0.0, 1.0]).astype(np.float32).reshape(10, 100)
    rounded = round_filter(weights, powers_for(weights, bits))
    counted = memory(rounded)
    zeros = rounded.zero_share
    assert zeros > 0
    assert counted.variable == round(weights.size * (bits - (bits - 1) * zeros))
    code = encode(rounded)
    assert len(code) == -(-counted.variable // 8)
    back = decode(code, rounded.signs.shape, rounded.powers)
    assert np.array_equal(back.real, rounded.real)
    with pytest.raises(ModelError, match="ends after"):
        decode(code[: len(code) // 2], rounded.signs.shape, rounded.powers)
    with pytest.raises(ModelError, match="goes on"):
        decode(code + b"\0", rounded.signs.shape, rounded.powers)


def test_codes_written_bit_by_bit() -> None:
    """0 | 1 sign exponent: 0, +2^-1, -2^0, -2^-2 with exponents -3 … 0 in two bits."""
    rounded = round_filter(np.array([0, 0.5, -1, -0.25]), PowersOfTwo(-3, 0))
    assert encode(rounded) == bytes([0b0_1010_111, 0b1_1101_000])
    with pytest.raises(ModelError, match="exponent"):
        decode(bytes([0b1011_0000]), (1,), PowersOfTwo(-2, 0))


def test_memory_of_filters_adds_up() -> None:
    parts = [memory(round_filter(w, powers_for(w, 4))) for w in (np.zeros(6), np.ones(2))]
    both = parts[0] + parts[1]
    assert (both.weights, both.fixed, both.variable) == (8, 32, 6 + 2 * 4)
    assert both.fixed_factor == 8
    assert both.variable_factor == 8 * 32 / 14


@pytest.mark.parametrize(("bits", "types"), [
    (2, ("int2", "int4", "int8")), (3, ("int4", "int8")), (4, ("int8",)), (5, ()), (6, ()), (9, ()),
])  # fmt: skip
def test_integer_types_that_hold_a_whole_set(bits: int, types: tuple[str, ...]) -> None:
    """+2 is beyond int2's +1, +8 beyond int4's +7, and +128 beyond int8's +127."""
    found = types_that_hold(SPANS[bits])
    assert found == types


def test_batch_normalization_flips_signs_and_clears_channels() -> None:
    """Channels with γ of both signs and 0: equal to the normalization itself, the powers untouched."""
    random = np.random.default_rng(3)
    weights = random.standard_normal((3, 1, 1, 4)).astype(np.float32)
    rounded = round_filter(weights, powers_for(weights, 4))
    norm = BatchNorm(
        gamma=np.array([1.5, -0.75, 0.0]), beta=np.array([0.1, 0.2, 0.3]), mean=np.array([1.0, -1.0, 2.0]),
        variance=np.array([4.0, 0.25, 1.0]), epsilon=0.0,
    )  # fmt: skip
    bias = np.array([0.5, -0.5, 0.25], np.float32)
    folded, factors, new_bias = fold(rounded, bias, norm)
    assert factors.tolist() == [0.75, 1.5, 1.0]
    x = random.standard_normal((7, 4))
    before = x @ rounded.real.reshape(3, 4).T + bias
    expected = norm.gamma * (before - norm.mean) / np.sqrt(norm.variance) + norm.beta
    found = (x @ folded.real.reshape(3, 4).T) * factors + new_bias
    assert np.allclose(found, expected, atol=1e-6)
    assert np.array_equal(folded.exponents[:2], rounded.exponents[:2])
    assert np.array_equal(folded.signs, rounded.signs * np.array([1, -1, 0]).reshape(3, 1, 1, 1))


def test_normalization_of_other_channels_or_nonsense_is_refused() -> None:
    one = np.ones(2)
    rounded = round_filter(np.ones((3, 4)), powers_for(np.ones(1), 3))
    with pytest.raises(ModelError, match="2 channels behind a layer of 3"):
        fold(rounded, None, BatchNorm(one, one, one, one))
    with pytest.raises(ModelError, match="not one vector each"):
        BatchNorm(one, one, one, np.ones(3))
    with pytest.raises(ModelError, match="not positive"):
        BatchNorm(one, one, one, -one)
    with pytest.raises(ModelError, match="NaN"):
        BatchNorm(one * np.nan, one, one, one)
