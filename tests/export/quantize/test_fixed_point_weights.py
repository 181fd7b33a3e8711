"""Fixed point of 12 bits and others: the greatest weight fits, nothing is off by more than half a step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from karat24.export.quantize.fixed_point import as_integers, fraction_bits, round_fixed_point
from karat24.refimpl.data_access import weight_layers
from karat24.refimpl.errors import ModelError, UsageError
from karat24.refimpl.graph import Graph
from karat24.refimpl.networks import fine_tune
from karat24.refimpl.networks.pruning import prune


@pytest.mark.parametrize(
    ("weights", "bits", "expected"),
    [
        ([0.5], 12, 11),  # 1024 of 2047; 2048 at 12
        ([0.999], 12, 11),  # 2046
        ([0.9999], 12, 10),  # rounds to 2048 at 11, which 12 bits do not hold
        ([1.0], 12, 10),
        ([-1.0], 12, 11),  # -2048 fits
        ([-1.0, 1.0], 12, 10),
        ([-0.5], 12, 12),
        ([0.0], 12, 0),
        ([], 12, 0),
        ([3000.0], 12, -1),
        ([1.5, -0.25], 2, -1),  # 1.5 / 2 = 0.75 rounds to 1, the greatest of 2 bits
        ([2.0**-149], 12, 159),  # 1024, the least float32
    ],
)
def test_as_many_fraction_bits_as_fit(weights: list[float], bits: int, expected: int) -> None:
    values = np.array(weights, np.float32)
    assert fraction_bits(values, bits) == expected
    if np.any(values):
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        integers = as_integers(values, expected)
        assert low <= integers.min()
        assert integers.max() <= high
        finer = as_integers(values, expected + 1)
        assert finer.min() < low or finer.max() > high


def test_random_filters_take_the_most_bits_that_fit() -> None:
    generator = np.random.default_rng(3)
    for bits in (2, 5, 12, 24):
        for _ in range(200):
            scale = 2.0 ** generator.uniform(-6, 6)
            values = (generator.standard_normal(7) * scale).astype(np.float32)
            fits = [
                f
                for f in range(-30, 42)
                if -(2 ** (bits - 1)) <= as_integers(values, f).min()
                and as_integers(values, f).max() < 2 ** (bits - 1)
            ]
            assert fraction_bits(values, bits) == max(fits)


def test_a_network_is_off_by_half_a_step_at_most_and_zeros_stay() -> None:
    graph = prune(fine_tune(8, 8), 0.8)
    rounded = round_fixed_point(graph)
    for one, other in zip(weight_layers(rounded), weight_layers(graph), strict=True):
        assert 0 < one.nonzero <= other.nonzero
    for before, after in zip(graph.tensors, rounded.tensors, strict=True):
        if not before.name.endswith("/filter"):
            assert after is before
            continue
        step = 2.0 ** -fraction_bits(before.data)
        error = np.abs(after.data.astype(np.float64) - before.data)
        assert error.max() <= step / 2
        assert error.max() > 0
        assert np.all(after.data[before.data == 0] == 0)
        assert np.array_equal(np.rint(after.data / step), after.data / step)
        assert len(np.unique(after.data)) <= 2**12


def with_weight(graph: Graph, value: float) -> Graph:
    tensors = list(graph.tensors)
    index = next(tensor.index for tensor in tensors if tensor.name == "repair/filter")
    data = tensors[index].data.copy()
    data.flat[0] = value
    tensors[index] = replace(tensors[index], data=data)
    return replace(graph, tensors=tuple(tensors))


def test_what_has_no_fixed_point_is_refused_by_name() -> None:
    graph = fine_tune(8, 8)
    for bits in (1, 25):
        with pytest.raises(UsageError, match="fixed point takes 2 to 24 bits"):
            round_fixed_point(graph, bits)
    with pytest.raises(ModelError, match=r"'repair/filter': the filter holds NaN"):
        round_fixed_point(with_weight(graph, np.nan))
