"""Histograms of a tensor's values, in bounded memory and independent of their order.

Bins are dyadic: their width is a power of two and zero is an edge. When a value
falls outside, widths double and neighbours merge, which is exact, so that the
result depends on the values seen and not on their order or grouping.
"""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.graph import Array

HALF = 4096
"""Bins on either side of zero: at least 8 to every step of 8 bits."""

CHUNK = 1 << 20
"""Values binned at a time."""

SMALLEST_EXPONENT = -149
"""Every float32 but zero has a magnitude of at least 2**-149."""


class Histogram:
    """Counts of float32 values in ``2 * HALF`` bins, and their exact minimum and maximum.

    Bin ``i`` (``-HALF <= i < HALF``, stored at ``counts[i + HALF]``) holds ``i * width <= value <
    (i + 1) * width``.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(2 * HALF, np.int64)
        self.minimum, self.maximum = math.inf, -math.inf
        self._exponent = SMALLEST_EXPONENT

    @property
    def width(self) -> float:
        """Width of a bin, a power of two: ``HALF`` bins reach to ``2 ** exponent``."""
        return math.ldexp(1.0 / HALF, self._exponent)

    @property
    def total(self) -> int:
        """Number of values seen."""
        return int(self.counts.sum())

    @property
    def centers(self) -> Array:
        """Middle of each bin, float64 ``[2 * HALF]``."""
        return (np.arange(-HALF, HALF) + 0.5) * self.width

    def add(self, values: Array) -> None:
        """Counts finite values of any shape; at least one."""
        low, high = float(values.min()), float(values.max())
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        if low != 0.0 or high != 0.0:
            # frexp gives |v| < 2**exponent, so that every value falls inside after widening.
            self._widen(math.frexp(max(-low, high))[1])
        inverse = 1.0 / self.width
        flat = values.reshape(-1)
        for start in range(0, flat.size, CHUNK):
            # A power of two scales exactly; floor then gives the bin.
            bins = np.floor(flat[start : start + CHUNK].astype(np.float64) * inverse).astype(np.int64)
            self.counts += np.bincount(bins + HALF, minlength=2 * HALF)

    def _widen(self, exponent: int) -> None:
        """Doubles the bins' width until they reach to ``2 ** exponent``, merging counts."""
        doublings = exponent - self._exponent
        if doublings <= 0:
            return
        self._exponent = exponent
        merged = 1 << min(doublings, HALF.bit_length() - 1)
        sums = self.counts.reshape(-1, merged).sum(axis=1)
        self.counts = np.zeros(2 * HALF, np.int64)
        middle = HALF - len(sums) // 2
        self.counts[middle : middle + len(sums)] = sums
