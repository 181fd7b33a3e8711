"""Differences are taken in wide integers, counted by sign, and never across element types."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from karat24.golden.diff import diff_arrays, merge
from karat24.refimpl.errors import CannotCompare


def test_uint8_difference_does_not_wrap() -> None:
    diff = diff_arrays(np.array([5, 0], np.uint8), np.array([3, 255], np.uint8))
    assert diff.max_abs_diff_lsb == 255
    assert diff.histogram == {-2: 1, 0: 0, 255: 1}


def test_int8_extremes_are_255_apart() -> None:
    assert diff_arrays(np.array([127], np.int8), np.array([-128], np.int8)).max_abs_diff_lsb == 255


def test_first_divergence_is_in_memory_order() -> None:
    expected = np.zeros((2, 3, 4), np.int8)
    found = expected.copy()
    found[1, 0, 2] = 7
    found[1, 2, 0] = 9
    first = diff_arrays(expected, found).first_divergence
    assert first is not None
    assert (first.index, first.expected, first.found) == ((1, 0, 2), 0.0, 7.0)


@pytest.mark.parametrize("found", [np.zeros(3, np.uint8), np.zeros((1, 3), np.int8), np.zeros(4, np.int8)])
def test_other_shape_or_type_is_not_comparable(found: np.ndarray) -> None:
    with pytest.raises(CannotCompare):
        diff_arrays(np.zeros(3, np.int8), found)


def test_floats_compare_by_bits() -> None:
    nan = np.array([np.nan, 0.0, 1.0], np.float32)
    assert diff_arrays(nan, nan.copy()).equal
    negative_zero = np.array([np.nan, -0.0, 1.0], np.float32)
    assert diff_arrays(nan, negative_zero).mismatch_count == 1


@given(
    hnp.arrays(np.int8, (3, 5)),
    hnp.arrays(np.int8, (3, 5)),
)
def test_histogram_accounts_for_every_element(expected: np.ndarray, found: np.ndarray) -> None:
    diff = diff_arrays(expected, found)
    assert sum(diff.histogram.values()) == diff.elements == 15
    assert (
        diff.mismatch_count
        == 15 - diff.histogram[0]
        == sum(a != b for a, b in zip(expected.flat, found.flat, strict=True))
    )
    assert diff.max_abs_diff_lsb == max(
        abs(int(a) - int(b)) for a, b in zip(expected.flat, found.flat, strict=True)
    )


@given(st.integers(0, 3))
def test_merge_adds_counts_and_keeps_the_first_divergence(wrong: int) -> None:
    expected = np.zeros(4, np.int8)
    found = expected.copy()
    found[:wrong] = 1
    both = merge(diff_arrays(expected, expected), diff_arrays(expected, found))
    assert both.elements == 8
    assert both.mismatch_count == wrong
    assert (both.first_divergence is None) == (wrong == 0)
