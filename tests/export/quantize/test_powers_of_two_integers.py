"""Powers of two as integers: what fits, what is refused, and shifts against products."""

from __future__ import annotations

import numpy as np
import pytest

from karat24.export.onnx.writing.convert_wide import split_of, two_int8
from karat24.export.quantize import check_accumulators
from karat24.export.quantize.powers_of_two import (
    PowerFilter,
    PowersOfTwo,
    as_integers,
    powers_for,
    round_filter,
    shift_add,
    spans,
)
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.errors import ModelError, UnsupportedOp
from karat24.refimpl.graph import Graph, Quantization


def rounded(weights: np.ndarray, bits: int, max_span: int | None = None) -> PowerFilter:
    return round_filter(weights, powers_for(weights, bits, max_span))


def of_exponents(*rows: tuple[int, ...]) -> PowerFilter:
    """A filter [channel, term] of these exponents, signs in turns; 99 stands for a weight of 0."""
    exponents = np.array(rows, np.int16)
    signs = np.where(exponents == 99, 0, np.where(np.indices(exponents.shape).sum(0) % 2, -1, 1))
    exponents[signs == 0] = 0
    return PowerFilter(signs.astype(np.int8), exponents, PowersOfTwo(-40, 40))


@pytest.mark.parametrize(("bits", "greatest"), [(2, 1), (3, 2), (4, 8)])
def test_four_bits_fit_int8_in_one_scale(bits: int, greatest: int) -> None:
    """Both ends of the set are present."""
    weights = np.array(powers_for(np.array([0.3]), bits).values)
    integers, parameters = as_integers(rounded(weights, bits), "layer", None)
    assert integers.dtype == np.int8
    assert np.abs(integers).max() == greatest
    assert parameters.scale == (2.0 ** (-2 - {2: 0, 3: 1, 4: 3}[bits]),)
    assert np.array_equal(integers * parameters.scale[0], rounded(weights, bits).real)


def test_five_bits_fit_a_channel_that_spans_six() -> None:
    """±2^7 is 128, which int8 lacks on one side; a channel without one of the ends has 64 at most."""
    fits, wide = of_exponents((-9, -3, 99), (-8, -2, -8)), of_exponents((-9, -2, 99), (-8, -2, -8))
    integers, parameters = as_integers(fits, "layer", 0)
    assert integers.tolist() == [[1, -64, 0], [-1, 64, -1]]
    assert parameters.scale == (2.0**-9, 2.0**-8)
    assert spans(wide, 0).tolist() == [7, 6]
    with pytest.raises(UnsupportedOp, match="layer 3: the exponents of a channel span 7, and int8 holds 6"):
        as_integers(wide, "layer 3", 0)
    with pytest.raises(UnsupportedOp, match="the exponents of a filter span 7"):
        as_integers(fits, "layer 3", None)


def test_max_span_makes_every_layer_fit() -> None:
    weights = np.random.default_rng(0).standard_normal((64, 576)) * 0.05
    for bits in range(2, 10):
        narrow = rounded(weights, bits, max_span=6)
        for axis in (0, None):
            integers, parameters = as_integers(narrow, "layer", axis)
            assert np.abs(integers).max() <= 64
            assert np.array_equal(integers * np.array(parameters.scale)[:, None], narrow.real)


def test_channels_of_a_normal_filter_at_five_and_six_bits() -> None:
    """At five bits most channels fit and some do not; at six none does."""
    weights = np.random.default_rng(5).standard_normal((64, 576)) * 0.05
    five, six = (spans(rounded(weights, bits), 0) for bits in (5, 6))
    assert 0 < np.count_nonzero(five <= 6) < 64
    assert six.min() > 6
    assert six.max() <= 15


def test_wide_filters_become_int16_up_to_span_14() -> None:
    integers, _ = as_integers(of_exponents((0, 14)), "layer", 0, wide=True)
    assert integers.dtype == np.int16
    assert integers.tolist() == [[1, -(2**14)]]
    with pytest.raises(UnsupportedOp, match="two int8 convolutions hold 14"):
        as_integers(of_exponents((0, 15)), "layer", 0, wide=True)
    assert as_integers(of_exponents((0, 6)), "layer", 0, wide=True)[0].dtype == np.int8


def test_dead_channels_and_dead_filters() -> None:
    integers, parameters = as_integers(of_exponents((99, 99), (3, 4)), "layer", 0)
    assert integers.tolist() == [[0, 0], [-1, 2]]
    assert parameters.scale == (2.0**-40, 8.0)
    assert not as_integers(of_exponents((99, 99)), "layer", None)[0].any()


def test_factors_go_into_the_scales() -> None:
    _, parameters = as_integers(of_exponents((0, 1), (-3, 2)), "layer", 0, np.array([0.3, 7.0]))
    assert parameters.scale == (float(np.float32(0.3)), 7 / 8)


def test_the_halves_of_a_wide_filter() -> None:
    """The example of a span of 7, and every power that any span from 7 to 14 has."""
    low, high = two_int8(np.array([128, -128, 64, 8, -4, 1, 0, 16]), 4)
    assert high.tolist() == [8, -8, 4, 0, 0, 0, 0, 1]
    assert low.tolist() == [0, 0, 0, 8, -4, 1, 0, 0]
    for span in range(7, 15):
        every = np.array([0, *(1 << p for p in range(span + 1))])
        every = np.concatenate([every, -every])
        low, high = two_int8(every, split_of(every))
        assert low.dtype == high.dtype == np.int8
        assert np.array_equal(low + high.astype(np.int64) * 2 ** split_of(every), every)
    with pytest.raises(ValueError, match="do not fit two int8 parts"):
        two_int8(np.array([1, 2**15]), 8)


@pytest.mark.parametrize("bits", range(2, 10))
def test_shifts_and_additions_equal_exact_products(bits: int) -> None:
    """8-bit inputs less a zero point, up to ±255; the products are those of Python's integers."""
    random = np.random.default_rng(bits)
    weights = random.standard_normal((5, 40)) * 0.05
    weights[0, 0], weights[1] = 2.0**-30 if bits > 6 else 0, 0
    filter_ = rounded(weights, bits)
    rows = random.integers(-255, 256, (6, 40))
    sums, least = shift_add(rows, filter_)
    units = [
        [int(v) for v in row * 2.0**-e] for row, e in zip(filter_.real, least.astype(float), strict=True)
    ]
    assert sums.tolist() == [
        [sum(int(x) * w for x, w in zip(row, unit, strict=True)) for unit in units] for row in rows
    ]


def test_int8_filters_give_the_sums_of_shifts() -> None:
    random = np.random.default_rng(1)
    weights = random.standard_normal((8, 50))
    for bits in (2, 3, 4, 5, 9):
        filter_ = rounded(weights, bits, max_span=6)
        rows = random.integers(-255, 256, (9, 50))
        integers, _ = as_integers(filter_, "layer", 0)
        assert np.array_equal(shift_add(rows, filter_)[0], rows @ integers.T.astype(np.int64))


def test_sums_beyond_int64_stay_exact() -> None:
    """A span of 70: 255 * 2^70 needs 78 bits."""
    sums, least = shift_add(np.array([[255, -1]]), of_exponents((40, -30)))
    assert sums.tolist() == [[255 * 2**70 + 1]]
    assert least.tolist() == [-30]


@pytest.mark.parametrize(("span", "terms"), [(6, 131_586), (7, 65_793), (15, 257)])
def test_as_many_products_as_an_int32_accumulator_holds(span: int, terms: int) -> None:
    """All weights the greatest power, all inputs 255 from their zero point; one product more overflows."""

    def graph(number: int) -> Graph:
        builder = GraphBuilder()
        x = builder.input("x", (1, 1, 1, number), "int8", Quantization.per_tensor(1.0, -128))
        weights = np.full((1, 1, 1, number), -(1 << span), np.int8 if span < 8 else np.int16)
        filter_ = builder.constant("w", weights, Quantization.per_tensor(1.0))
        y = builder.tensor("y", (1, 1, 1, 1), "int8", Quantization.per_tensor(2.0**25))
        return builder.build((builder.layer("CONV_2D", (x, filter_, -1), (y,)),))

    check_accumulators(graph(terms))
    with pytest.raises(ModelError, match="more than int32 holds"):
        check_accumulators(graph(terms + 1))


def test_shift_add_refuses_other_inputs() -> None:
    with pytest.raises(ModelError, match="float64"):
        shift_add(np.ones((1, 2)), of_exponents((0, 1)))
    with pytest.raises(ModelError, match=r"\[1, 3\]"):
        shift_add(np.ones((1, 3), np.int64), of_exponents((0, 1)))
