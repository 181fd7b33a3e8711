"""Counting which cases of a layer's arithmetic were met, method by method."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from karat24.golden.certify.tables import operands_of
from karat24.refimpl.graph import QUANTIZED_RANGE, Array, LayerView
from karat24.refimpl.profiles.rules import Method, Rule
from karat24.refimpl.staircase import Reach, Requantization, staircase
from karat24.refimpl.staircase.regions import regions
from karat24.refimpl.staircase.requantization import ACCUMULATING

LISTED = 5
"""Channels named in a list of what was not met."""


class StaircaseCoverage:
    """The accumulators on both sides of every threshold within reach, and the ends of the reach.

    Raises CannotCompare where a method is not a staircase within the reach.
    """

    def __init__(self, view: LayerView, rule: Rule, rounding: Requantization, within: Reach) -> None:
        self._rule, self._axis = rule, ACCUMULATING[view.op].output_axis
        self._wanted: dict[Method, list[Array]] = {}
        self._seen: dict[Method, list[Array]] = {}
        thresholds: list[list[Array]] = [[] for _ in range(rounding.channels)]
        for region in regions(view, [rule]):
            (method,) = region.methods
            stairs = staircase(rounding, method, within.first, within.last).thresholds
            there = region.channels(self._axis, rounding.channels)
            wanted = []
            for channel in range(rounding.channels):
                first, last = int(within.first[channel]), int(within.last[channel])
                own = stairs[:, channel]
                steps = np.unique([*own[(own > first) & (own <= last)], min(first + 1, last), last])
                beside = np.union1d(steps, steps - 1)
                wanted.append(beside[beside >= first] if there[channel] else beside[:0])
                if there[channel]:
                    thresholds[channel].append(steps)
            self._wanted[method] = wanted
            self._seen[method] = [np.zeros(cases.size, bool) for cases in wanted]
        self.thresholds = [
            np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64) for found in thresholds
        ]
        self.has_tail = len(self._wanted) > 1

    def add(self, view: LayerView, accumulator: Array) -> None:
        """Counts the accumulators of one model's only layer."""
        for region in regions(view, [self._rule]):
            if region.methods[0] not in self._wanted:
                continue
            inside = np.ones(accumulator.shape, bool) if region.elements is None else region.elements
            by_channel = zip(
                np.moveaxis(accumulator, self._axis, 0), np.moveaxis(inside, self._axis, 0), strict=True
            )
            wanted, seen = self._wanted[region.methods[0]], self._seen[region.methods[0]]
            for channel, (values, here) in enumerate(by_channel):
                seen[channel] |= np.isin(wanted[channel], values[here])

    def counts(self) -> tuple[int, int]:
        """Cases wanted, and met."""
        found = [channel for seen in self._seen.values() for channel in seen]
        return sum(channel.size for channel in found), sum(int(channel.sum()) for channel in found)

    def missing(self) -> tuple[str, ...]:
        """What was not met, by channel."""
        lines = [
            f"channel {channel} ({method}): {int((~met).sum())} of {met.size} accumulators, the first "
            f"{int(self._wanted[method][channel][~met][0])}"
            for method, seen in self._seen.items()
            for channel, met in enumerate(seen)
            if not met.all()
        ]
        return _shortened(lines, "channels")


class TableCoverage:
    """All values of a byte, or all pairs, once for each method."""

    def __init__(self, view: LayerView, rule: Rule) -> None:
        self._rule = rule
        self._operands = operands_of(view)
        entries = 256 ** len(self._operands)
        self._seen: dict[Method, Array] = {
            region.methods[0]: np.zeros(entries, bool) for region in regions(view, [rule])
        }

    @property
    def methods(self) -> Sequence[Method]:
        """The methods that meet in the layer."""
        return tuple(self._seen)

    def add(self, view: LayerView, operands: Sequence[Array]) -> None:
        """Counts what one copy of the layer was fed."""
        lows = [QUANTIZED_RANGE[view.input(position).dtype][0] for position in self._operands]
        values = [value.astype(np.int64) - low for value, low in zip(operands, lows, strict=True)]
        cases = np.ravel_multi_index(tuple(np.broadcast_arrays(*values)), (256,) * len(values))
        for region in regions(view, [self._rule]):
            if region.methods[0] in self._seen:
                inside = cases if region.elements is None else cases[region.elements]
                self._seen[region.methods[0]][inside] = True

    def counts(self) -> tuple[int, int]:
        """Cases wanted, and met."""
        return sum(s.size for s in self._seen.values()), sum(int(s.sum()) for s in self._seen.values())

    def missing(self) -> tuple[str, ...]:
        """What was not met, by method."""
        return tuple(
            f"{method}: {int((~seen).sum())} of {seen.size} cases"
            for method, seen in self._seen.items()
            if not seen.all()
        )


def _shortened(lines: list[str], what: str) -> tuple[str, ...]:
    if len(lines) <= LISTED:
        return tuple(lines)
    return (*lines[:LISTED], f"and {len(lines) - LISTED} more {what}")
