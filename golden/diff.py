"""Differences of two arrays, in LSBs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from karat24.refimpl.errors import CannotCompare
from karat24.refimpl.graph import Array


@dataclass(frozen=True)
class FirstDivergence:
    """The first differing element in memory order: where, what was expected, what was found."""

    index: tuple[int, ...]
    expected: float
    found: float


@dataclass(frozen=True)
class ArrayDiff:
    """Element-wise difference ``found - expected``.

    For integer arrays differences are in LSBs of the array's own scale and
    ``histogram`` counts each signed difference, zero included. Float arrays are
    compared bit by bit; ``max_abs_diff_lsb`` is then 0 and ``max_abs_diff`` real.
    """

    elements: int
    mismatch_count: int
    max_abs_diff_lsb: int
    max_abs_diff: float
    histogram: Mapping[int, int]
    first_divergence: FirstDivergence | None

    @property
    def equal(self) -> bool:
        """True when every element has the same bits."""
        return self.mismatch_count == 0


def diff_arrays(expected: Array, found: Array) -> ArrayDiff:
    """Compares two arrays element by element.

    Raises CannotCompare when shapes or element types differ: such arrays are
    not "different by some LSBs", they are answers to different questions.
    """
    if expected.shape != found.shape or expected.dtype != found.dtype:
        raise CannotCompare(f"expected {expected.dtype} {expected.shape}, found {found.dtype} {found.shape}")
    if expected.dtype.kind == "f":
        return _diff_floats(expected, found)
    return _diff_integers(expected, found)


def _diff_integers(expected: Array, found: Array) -> ArrayDiff:
    differing = expected != found
    count = int(np.count_nonzero(differing))
    if count == 0:
        return ArrayDiff(expected.size, 0, 0, 0.0, {0: expected.size}, None)
    # Widened first: uint8 3 - 5 is -2 here, not 254.
    delta = found[differing].astype(np.int64) - expected[differing].astype(np.int64)
    values, counts = np.unique(delta, return_counts=True)
    histogram = {0: expected.size - count} | {int(v): int(n) for v, n in zip(values, counts, strict=True)}
    largest = int(np.abs(values).max())
    return ArrayDiff(
        expected.size, count, largest, float(largest), dict(sorted(histogram.items())),
        _first(expected, found, differing),
    )  # fmt: skip


def _diff_floats(expected: Array, found: Array) -> ArrayDiff:
    bits = np.dtype(f"u{expected.dtype.itemsize}")
    expected, found = np.ascontiguousarray(expected), np.ascontiguousarray(found)
    differing = expected.view(bits) != found.view(bits)
    count = int(np.count_nonzero(differing))
    if count == 0:
        return ArrayDiff(expected.size, 0, 0, 0.0, {}, None)
    with np.errstate(invalid="ignore"):
        delta = np.abs(found[differing].astype(np.float64) - expected[differing].astype(np.float64))
    largest = float("nan") if np.isnan(delta).any() else float(delta.max())
    return ArrayDiff(expected.size, count, 0, largest, {}, _first(expected, found, differing))


def _first(expected: Array, found: Array, differing: Array) -> FirstDivergence:
    flat = int(np.argmax(differing.reshape(-1)))
    index = tuple(int(i) for i in np.unravel_index(flat, expected.shape))
    return FirstDivergence(index, float(expected[index]), float(found[index]))


def merge(first: ArrayDiff, second: ArrayDiff) -> ArrayDiff:
    """The difference over both: counts add, maxima take the larger, the first divergence stays first."""
    histogram = dict(first.histogram)
    for step, count in second.histogram.items():
        histogram[step] = histogram.get(step, 0) + count
    return ArrayDiff(
        first.elements + second.elements,
        first.mismatch_count + second.mismatch_count,
        max(first.max_abs_diff_lsb, second.max_abs_diff_lsb),
        max(first.max_abs_diff, second.max_abs_diff),
        dict(sorted(histogram.items())),
        first.first_divergence or second.first_divergence,
    )
