"""One flipped bit of one weight, found without running the layer once per bit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from karat24.golden.attribution.hypothesis import Cut, Hypothesis
from karat24.golden.attribution.sums import only_differing_channel
from karat24.golden.attribution.suspect import Suspect
from karat24.refimpl.graph import Array

BITS = 8
MOST_TRIALS = 1 << 22
"""Accumulators requantized at once: pixels of the sample times weights times bits."""

MOST_VALUES = 1 << 24
"""Accumulators requantized for bits that give the sample's values, in all."""


def weight_bit(suspect: Suspect) -> Iterator[Hypothesis | Cut]:
    """Flipping bit ``b`` of weight ``k`` adds ``row[k] * d`` to each accumulator of its channel.

    ``d`` is the change of the weight's value. A sample of pixels, those that differ most first, rules out
    nearly all bits; the others are tried on every pixel.
    """
    only = only_differing_channel(suspect)
    if only is None or (windowed := only[0].windowed) is None:
        return
    sums, channel = only
    weights = windowed.column(channel)
    own = sums.acc[..., channel].reshape(-1)
    expected = sums.by_pixel(suspect.own.outputs[0])[:, channel]
    found = sums.by_pixel(suspect.found[0])[:, channel]
    pixels = _sample(expected, found, MOST_TRIALS // (weights.size * BITS))
    if not pixels.size:
        yield Cut(f"{weights.size} weights of a channel are too many to try each bit")
        return
    flipped = (weights.view(np.uint8)[:, None] ^ (1 << np.arange(BITS)).astype(np.uint8)).view(weights.dtype)
    change = flipped.astype(np.int64) - weights.astype(np.int64)[:, None]
    trials = own[pixels][:, None, None] + windowed.rows(channel, pixels)[:, :, None] * change
    alive = sums.of_channel(trials, channel) == found[pixels][:, None, None]
    survivors = np.argwhere(alive.all(axis=0))
    most = MOST_VALUES // own.size
    if len(survivors) > most:
        yield Cut(f"{most} of {len(survivors)} weight bits were tried on every pixel")
    for place, bit in survivors[:most].tolist():
        added = windowed.term(channel, place, np.arange(own.size)) * change[place, bit]
        outputs = sums.with_channel(channel, sums.of_channel(own + added, channel))
        yield Hypothesis(f"bit {bit} of {windowed.describe(channel, place)}", outputs=outputs)


def _sample(expected: Array, found: Array, most: int) -> Array:
    """Up to 64 pixels: half of them the ones that differ most, the others spread evenly."""
    most = min(most, 64)
    gap = np.abs(found.astype(np.int64) - expected.astype(np.int64))
    worst = np.argsort(-gap, kind="stable")[: (most + 1) // 2]
    spread = np.linspace(0, gap.size - 1, most // 2, dtype=np.int64)
    return np.unique(np.concatenate([worst, spread]))
