"""One flipped bit of one weight, found without running the layer once per bit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from karat24.golden.attribution.channel import (
    GATHERED,
    column,
    describe_weight,
    only_differing_channel,
    outputs_of_accumulators,
    rows,
    term,
    with_channel,
)
from karat24.golden.attribution.hypothesis import Cut, Hypothesis
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
    channel, acc = only_differing_channel(suspect), suspect.own.accumulator
    if channel is None or acc is None or suspect.view.op not in GATHERED or suspect.weighted is None:
        return
    filter_ = suspect.view.input(suspect.weighted.filter)
    weights = column(suspect, channel)
    sums = acc[..., channel].astype(np.int64).reshape(-1)
    found = suspect.found[0][..., channel].reshape(-1)
    pixels = _sample(suspect, channel, MOST_TRIALS // (weights.size * BITS))
    if not pixels.size:
        yield Cut(f"{weights.size} weights of a channel are too many to try each bit")
        return
    flipped = (weights.view(np.uint8)[:, None] ^ (1 << np.arange(BITS)).astype(np.uint8)).view(weights.dtype)
    change = flipped.astype(np.int64) - weights.astype(np.int64)[:, None]
    trials = sums[pixels][:, None, None] + rows(suspect, channel, pixels)[:, :, None] * change
    alive = outputs_of_accumulators(suspect, trials, channel) == found[pixels][:, None, None]
    survivors = np.argwhere(alive.all(axis=0))
    most = MOST_VALUES // sums.size
    if len(survivors) > most:
        yield Cut(f"{most} of {len(survivors)} weight bits were tried on every pixel")
    for place, bit in survivors[:most].tolist():
        added = term(suspect, channel, place, np.arange(sums.size)) * change[place, bit]
        values = outputs_of_accumulators(suspect, sums + added, channel)
        outputs = with_channel(suspect, channel, values.reshape(acc.shape[:-1]))
        yield Hypothesis(
            f"bit {bit} of {describe_weight(suspect.view, filter_, channel, place)}", outputs=outputs
        )


def _sample(suspect: Suspect, channel: int, most: int) -> Array:
    """Up to 64 pixels: half of them the ones that differ most, the others spread evenly."""
    most = min(most, 64)
    expected, found = suspect.own.outputs[0][..., channel], suspect.found[0][..., channel]
    gap = np.abs(found.astype(np.int64) - expected.astype(np.int64)).reshape(-1)
    worst = np.argsort(-gap, kind="stable")[: (most + 1) // 2]
    spread = np.linspace(0, gap.size - 1, most // 2, dtype=np.int64)
    return np.unique(np.concatenate([worst, spread]))
