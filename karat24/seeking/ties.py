"""The ties of a model: where in each channel of each accumulating layer rounding is decided.

A tie is a threshold of a channel's staircase; it is met by an accumulator directly on either side of it, or,
of two profiles, by one that they round differently. A channel's ends are the least and the greatest output
it can have; each is met by that output.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from karat24.refimpl.errors import CannotCompare, KaratError
from karat24.refimpl.graph import Array, Graph, LayerView
from karat24.refimpl.ops import OPS
from karat24.refimpl.profiles import Profile, Rule
from karat24.refimpl.staircase import reach, requantization, staircase
from karat24.refimpl.staircase.regions import Region, regions
from karat24.refimpl.staircase.requantization import ACCUMULATING
from karat24.refimpl.trace import Trace


@dataclass(frozen=True)
class Coverage:
    """What a case meets of one layer: distinct ties of all channels, and ends."""

    layer: int
    op: str
    channels: int
    ties: int
    of_ties: int
    channels_on_ties: int
    ends: int
    of_ends: int


@dataclass(frozen=True, eq=False)
class _Part:
    """One region of a layer. ``lowest`` and ``highest`` int64 ``[257, channel]``: row ``k`` holds the
    accumulators that meet the threshold of output ``low + k``, lowest above highest where none does; rows 0
    and 256 are never met. ``ends`` int64 ``[2, channel]`` are the least and greatest outputs. A tie's number
    is ``first + k * channels + channel``; behind all ties follow the ends' numbers."""

    view: LayerView
    region: Region
    low: int
    lowest: Array
    highest: Array
    ends: Array
    first: int

    @property
    def channels(self) -> int:
        return int(self.lowest.shape[1])

    @property
    def behind_ties(self) -> int:
        return self.first + int(self.lowest.size)

    @property
    def stop(self) -> int:
        return self.behind_ties + 2 * self.channels


class Ties:
    """All ties and ends of a graph's layers under one profile, numbered.

    ``other``: only ties at which the two profiles part. ``left_out`` says of layers with accumulators why
    nothing is sought there.
    """

    def __init__(self, graph: Graph, profile: Profile, other: Profile | None = None) -> None:
        self.left_out: dict[int, str] = {}
        self._parts: list[_Part] = []
        for view in graph.views():
            if view.op not in ACCUMULATING:
                continue
            try:
                OPS[view.op].check(view)
                rules = [profile.rule(view)] + ([] if other is None else [other.rule(view)])
                self._parts += self._of_layer(view, rules)
            except KaratError as error:
                self.left_out[view.layer.index] = str(error)

    def __len__(self) -> int:
        """Numbers in use, those of ties that no accumulator meets among them."""
        return self._parts[-1].stop if self._parts else 0

    @property
    def layers(self) -> list[int]:
        """Indices of the layers that have ties, in order."""
        return list(dict.fromkeys(part.view.layer.index for part in self._parts))

    def hits(self, trace: Trace) -> Iterator[tuple[int, Array, Array]]:
        """Layer by layer what one run met, which is one of the same profile, with accumulators: the layer,
        numbers of ties and ends, and of each the place in the output (its channel's axis aside), -1 for an
        end. A tie that is met twice comes twice."""
        for part in self._parts:
            yield (part.view.layer.index, *_hits(part, trace))

    def layer_of(self) -> Array:
        """For each number the place of its layer in :attr:`layers`; of ends, that plus the number of
        layers."""
        places = {layer: place for place, layer in enumerate(self.layers)}
        result = np.zeros(len(self), np.int64)
        for part in self._parts:
            place = places[part.view.layer.index]
            result[part.first : part.behind_ties] = place
            result[part.behind_ties : part.stop] = place + len(places)
        return result

    def coverage(self, numbers: Sequence[Array]) -> list[Coverage]:
        """What cases that met ``numbers`` meet together, layer by layer."""
        seen = np.zeros(len(self), bool)
        for some in numbers:
            seen[some] = True
        return [self._covered(layer, seen) for layer in self.layers]

    def _covered(self, layer: int, seen: Array) -> Coverage:
        parts = [part for part in self._parts if part.view.layer.index == layer]
        ties = of_ties = ends = of_ends = 0
        channels = np.zeros(parts[0].channels, bool)
        for part in parts:
            here = seen[part.first : part.behind_ties].reshape(part.lowest.shape)
            channels |= here.any(axis=0)
            ties += int(here.sum())
            of_ties += int((part.lowest <= part.highest).sum())
            ends += int(seen[part.behind_ties : part.stop].sum())
            of_ends += 2 * int(_present(part).sum())
        op = parts[0].view.op
        return Coverage(layer, op, channels.size, ties, of_ties, int(channels.sum()), ends, of_ends)

    def _of_layer(self, view: LayerView, rules: Sequence[Rule]) -> list[_Part]:
        within = reach(view)
        roundings = [requantization(view, rule) for rule in rules]
        if within is None:
            raise CannotCompare(f"{view}: its filter or its bias is computed by the graph")
        if roundings[0] is None:
            raise CannotCompare(f"{view}: its output is not a tensor of 8 bits")
        axis, first, parts = ACCUMULATING[view.op].output_axis, len(self), []
        for region in regions(view, rules):
            stairs = [
                staircase(rounding, method, within.first, within.last).thresholds
                for rounding, method in zip(roundings, region.methods, strict=True)
                if rounding is not None
            ]
            there = region.channels(axis, roundings[0].channels)
            lowest = np.full((257, there.size), 1, np.int64)
            highest = np.zeros_like(lowest)
            t, u = stairs[0], stairs[-1]
            # Of one profile both sides of each threshold; of two what lies between their thresholds.
            least, most = (t - 1, t) if len(stairs) == 1 else (np.minimum(t, u), np.maximum(t, u) - 1)
            reachable = (t > within.first) & (t <= within.last) & there
            reachable[:-1] &= t[:-1] < t[1:]  # of outputs that one accumulator skips the last one counts
            lowest[1:256] = np.where(reachable, least, 1)
            highest[1:256] = np.where(reachable, most, 0)
            ends = roundings[0].low + np.stack([(t <= e).sum(axis=0) for e in (within.first, within.last)])
            parts.append(_Part(view, region, roundings[0].low, lowest, highest, ends, first))
            first = parts[-1].stop
        return parts


def _hits(part: _Part, trace: Trace) -> tuple[Array, Array]:
    axis, channels = ACCUMULATING[part.view.op].output_axis, part.channels
    acc = np.moveaxis(trace.accumulators[part.view.layer.index], axis, -1).reshape(-1, channels)
    out = np.moveaxis(trace.tensors[part.view.output().index], axis, -1).reshape(-1, channels)
    inside: Array | bool = True
    if part.region.elements is not None:
        inside = np.moveaxis(part.region.elements, axis, -1).reshape(-1, channels)
    reached = (out.astype(np.int64) - part.low) * channels + np.arange(channels)
    numbers, places = [], []
    for row in (reached, reached + channels):  # the last threshold reached, and the next
        on = (acc >= part.lowest.take(row)) & (acc <= part.highest.take(row)) & inside
        numbers.append(part.first + row[on])
        places.append(np.nonzero(on)[0])
    for end in range(2):
        here = np.flatnonzero(((out == part.ends[end]) & inside).any(axis=0))
        numbers.append(part.behind_ties + end * channels + here)
        places.append(np.full(here.size, -1))
    return np.concatenate(numbers), np.concatenate(places)


def _present(part: _Part) -> Array:
    return part.region.channels(ACCUMULATING[part.view.op].output_axis, part.channels)
