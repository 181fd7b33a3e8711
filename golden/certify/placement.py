"""Windows, weights and biases that put wanted accumulators into every output channel at once.

All channels see one set of windows, so a window says *which* weights count and each channel's weights say
*what* they add:

    acc[window, channel] = bias[channel] + sum over taps of inputs[window, tap] * weights[channel, tap]

Each threshold has a group of taps of its own: ``coarse`` taps that see the largest input X, and a fine one
that sees 1 (or -1). Since |X| is at most the number of weights, their sums leave no gap. Tap 0 is switched on
in every second window and takes one step down, from a threshold to the accumulator below it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from karat24.refimpl.errors import CannotCompare
from karat24.refimpl.graph import Array

COARSE = (1, 2, 4, 8, 16, 32)
"""Numbers of coarse taps tried; the one that needs the fewest models is taken."""


@dataclass(frozen=True, eq=False)
class Placement:
    """One model: ``inputs`` int64 ``[window, tap]`` and ``weights`` int64 ``[channel, tap]``, zero points
    removed, and ``bias`` int64 ``[channel]``."""

    inputs: Array
    weights: Array
    bias: Array

    @property
    def accumulators(self) -> Array:
        """int64 ``[window, channel]``; the products are exact in float64."""
        products = self.inputs.astype(np.float64) @ self.weights.T.astype(np.float64)
        return products.astype(np.int64) + self.bias


@dataclass(frozen=True)
class Taps:
    """The ``count`` taps behind an output, and what they can hold: least and greatest input and weight,
    zero points removed. 0 lies within both."""

    count: int
    inputs: tuple[int, int]
    weights: tuple[int, int]

    @property
    def coarse_input(self) -> int:
        """The input of greatest magnitude."""
        low, high = self.inputs
        return high if high >= -low else low

    @property
    def fine_input(self) -> int:
        """1, or -1 where inputs are never positive."""
        return 1 if self.inputs[1] >= 1 else -1

    @property
    def fine_weight(self) -> int:
        """1, or -1 where weights are never positive."""
        return 1 if self.weights[1] >= 1 else -1

    def span(self, coarse: int) -> tuple[int, int]:
        """Least and greatest sum of ``coarse`` coarse taps and a fine one."""
        ends = [
            sorted(value * weight for weight in self.weights)
            for value in (*[self.coarse_input] * coarse, self.fine_input)
        ]
        return sum(low for low, _ in ends), sum(high for _, high in ends)

    def groups(self, coarse: int) -> int:
        """Thresholds that one model holds: one by the bias alone, the others with a group of taps each."""
        return 1 + (self.count - 1) // (coarse + 1)

    def split(self, sums: Array, coarse: int) -> Array:
        """Weights ``[channel, coarse + 1]`` whose products with a group's inputs add up to ``sums``, int64
        within :meth:`span`."""
        weights = np.zeros((sums.size, coarse + 1), np.int64)
        rest = sums.copy()
        for tap in range(coarse):
            low, high = self.span(coarse - 1 - tap)
            # What this tap must leave lies in [low, high]; it takes as little as it can.
            ends = np.stack([(rest - high) / self.coarse_input, (rest - low) / self.coarse_input])
            ends.sort(axis=0)
            least, most = np.ceil(ends[0]).astype(np.int64), np.floor(ends[1]).astype(np.int64)
            weights[:, tap] = np.clip(np.clip(0, least, most), *self.weights)
            rest -= weights[:, tap] * self.coarse_input
        weights[:, coarse] = np.clip(rest * self.fine_input, *self.weights)
        return weights


def placements(thresholds: Sequence[Array], taps: Taps) -> Iterator[Placement]:
    """Models that together meet ``t`` and ``t - 1`` for each of ``thresholds``, int64 ascending per channel.

    Raises CannotCompare where inputs or weights have one value only.
    """
    if taps.inputs[0] == taps.inputs[1] or taps.weights[0] == taps.weights[1] or taps.count < 1:
        raise CannotCompare("inputs or weights that can only be 0 place no accumulator")
    widest = max(thresholds, key=lambda found: int(found[-1] - found[0]) if found.size else -1)
    coarse = min(COARSE, key=lambda number: sum(1 for _ in _chunks(widest, taps, number)))
    chunks = [_chunks(found, taps, coarse) for found in thresholds]
    last = [(int(found[0]), found[:1]) if found.size else (0, np.zeros(0, np.int64)) for found in thresholds]
    while True:
        taken = [next(chunk, None) for chunk in chunks]
        if all(chunk is None for chunk in taken):
            return
        yield _placement([a or b for a, b in zip(taken, last, strict=True)], taps, coarse)


def _chunks(thresholds: Array, taps: Taps, coarse: int) -> Iterator[tuple[int, Array]]:
    """Runs of thresholds that one model can hold, each with the threshold the bias gives."""
    low, high = taps.span(coarse)
    most, start = taps.groups(coarse), 0
    while start < thresholds.size:
        nearest = int(np.searchsorted(thresholds, thresholds[start] - low, side="right")) - 1
        middle = int(thresholds[min(nearest, start + most - 1)])
        end = min(int(np.searchsorted(thresholds, middle + high, side="right")), start + most)
        yield middle, thresholds[start:end]
        start = end


def _placement(chunks: Sequence[tuple[int, Array]], taps: Taps, coarse: int) -> Placement:
    """One chunk per channel as a model; a channel with fewer thresholds than others repeats its middle."""
    middle = np.array([value for value, _ in chunks], np.int64)
    groups = max(1, *(len(found) for _, found in chunks))
    inputs = np.zeros((2 * groups, taps.count), np.int64)
    weights = np.zeros((len(chunks), taps.count), np.int64)
    step = taps.fine_input * taps.fine_weight
    inputs[1::2, 0], weights[:, 0] = taps.fine_input, taps.fine_weight
    wanted = np.repeat(middle[:, np.newaxis], groups, axis=1)
    for channel, (value, found) in enumerate(chunks):
        others = found[found != value]
        wanted[channel, 1 : 1 + others.size] = others
    for group in range(1, groups):
        own = slice(1 + (group - 1) * (coarse + 1), 1 + group * (coarse + 1))
        inputs[2 * group : 2 * group + 2, own] = [taps.coarse_input] * coarse + [taps.fine_input]
        weights[:, own] = taps.split(wanted[:, group] - middle, coarse)
    return Placement(inputs, weights, middle - (step > 0))
