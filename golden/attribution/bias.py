"""Mistakes in the bias."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from karat24.golden.attribution.hypothesis import Cut, Hypothesis
from karat24.golden.attribution.sums import only_differing_channel
from karat24.golden.attribution.suspect import Suspect, with_data
from karat24.refimpl.graph import Array

MOST_VALUES = 1 << 24
"""Most accumulators of a channel that are requantized with biases of other channels."""


def _bias(suspect: Suspect) -> tuple[int, Array] | None:
    """The position of the layer's bias among its inputs, and its values."""
    weighted = suspect.weighted
    if weighted is None or weighted.bias is None:
        return None
    tensor = suspect.view.optional_input(weighted.bias)
    return None if tensor is None or tensor.data is None else (weighted.bias, tensor.data)


def missing(suspect: Suspect) -> Iterator[Hypothesis | Cut]:
    """No bias is added, to any channel or to the one that differs."""
    if (found := _bias(suspect)) is None:
        return
    position, bias = found
    if bias.any():
        yield Hypothesis("that of every channel", with_data(suspect.view, position, np.zeros_like(bias)))
    channels = suspect.differing_channels
    if len(channels) == 1 and bias.size > 1 and bias[channels[0]]:
        one = np.array(bias)
        one[channels[0]] = 0
        yield Hypothesis(f"that of channel {channels[0]}", with_data(suspect.view, position, one))


def off_by_one(suspect: Suspect) -> Iterator[Hypothesis | Cut]:
    """The bias is one larger or smaller, in every channel or in the one that differs."""
    if (found := _bias(suspect)) is None:
        return
    position, bias = found
    channels = suspect.differing_channels
    for step, word in ((1, "larger"), (-1, "smaller")):
        changed = np.clip(bias.astype(np.int64) + step, -(2**31), 2**31 - 1).astype(bias.dtype)
        yield Hypothesis(f"one {word} in every channel", with_data(suspect.view, position, changed))
        if len(channels) == 1 and bias.size > 1:
            one = np.array(bias)
            one[channels[0]] = changed[channels[0]]
            place = f"one {word} in channel {channels[0]}"
            yield Hypothesis(place, with_data(suspect.view, position, one))


def of_another_channel(suspect: Suspect) -> Iterator[Hypothesis | Cut]:
    """Each channel has its neighbour's bias, two have each other's, or the one that differs has another's."""
    if (found := _bias(suspect)) is None:
        return
    position, bias = found
    channels = suspect.differing_channels
    for step, word in ((-1, "next"), (1, "previous")):
        changed = np.roll(bias, step)
        if not np.array_equal(changed, bias):
            yield Hypothesis(f"each channel has the {word} one's", with_data(suspect.view, position, changed))
    if len(channels) == 2:
        changed = np.array(bias)
        changed[list(channels)] = changed[list(channels[::-1])]
        place = f"channels {channels[0]} and {channels[1]} have each other's"
        yield Hypothesis(place, with_data(suspect.view, position, changed))
    if (only := only_differing_channel(suspect)) is None:
        return
    sums, channel = only
    without = sums.acc[..., channel] - int(bias[channel])
    most = MOST_VALUES // without.size
    if bias.size > most:
        yield Cut(f"biases of {most} of {bias.size} channels were tried")
    for other in range(min(bias.size, most)):
        if bias[other] != bias[channel]:
            values = sums.of_channel(without + int(bias[other]), channel)
            outputs = sums.with_channel(channel, values)
            yield Hypothesis(f"channel {channel} has that of channel {other}", outputs=outputs)
