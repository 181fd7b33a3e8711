"""Staircases: for each channel, the accumulators at which the quantized output goes up by one.

Requantization is monotone in the accumulator, so at most 255 thresholds per channel say everything
about it. Each is found by bisection on the spec: ``out(t - 1) < k <= out(t)``. It begins near the threshold,
because a multiplication makes steps of one width, but for rounding; what is found does not rest on that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from karat24.refimpl.errors import CannotCompare
from karat24.refimpl.graph import Array
from karat24.refimpl.profiles.rules import Method
from karat24.refimpl.staircase.requantization import Requantization

MARGIN = 3
"""Accumulators by which a threshold mostly lies away from where evenly spaced ones lie, at most."""


@dataclass(frozen=True, eq=False)
class Staircase:
    """One method's staircase over accumulators ``first[c]`` to ``last[c]``, both included.

    ``thresholds`` int64 ``[step, channel]``: the lowest accumulator whose output is at least
    ``low + 1 + step``; ``last[c] + 1`` where none is. ``low`` is the element type's least value.
    """

    method: Method
    low: int
    first: Array
    last: Array
    thresholds: Array

    def outputs(self, acc: Array) -> Array:
        """Outputs int64 of accumulators ``[any, channel]`` within ``first`` to ``last``."""
        reached = acc[np.newaxis] >= self.thresholds[:, np.newaxis, :]
        return self.low + np.asarray(reached.sum(axis=0), np.int64)


def staircase(rounding: Requantization, method: Method, first: Array, last: Array) -> Staircase:
    """The staircase of ``method`` over accumulators ``first`` to ``last``, int64 ``[channel]``.

    Raises CannotCompare where the method is not monotone over these accumulators.
    """
    lowest, highest = rounding.defined(method)
    beyond = np.flatnonzero((first < lowest) | (last > highest))
    if beyond.size:
        channel = int(beyond[0])
        raise CannotCompare(
            f"{rounding.view}: accumulators of channel {channel} reach {first[channel]} to {last[channel]}; "
            f"{method} wraps beyond {lowest[channel]} to {highest[channel]}, so it is not a staircase"
        )
    least, most = rounding(np.stack([first, last]), method)
    steps = np.arange(rounding.low + 1, rounding.high + 1)[:, np.newaxis]
    bracket = _Bracket(rounding, method, steps, first, last, least, most)
    # Between the first and the last step of a channel thresholds are evenly spaced, but for rounding.
    ends = _Bracket(rounding, method, np.stack([least + 1, most]), first, last, least, most)
    low, high = ends.halved()
    guess = low + (high - low) * (steps - least - 1) // np.maximum(most - least - 1, 1)
    bracket.tried(guess - MARGIN)
    bracket.tried(guess + MARGIN)
    return Staircase(method, rounding.low, first, last, bracket.halved())


class _Bracket:
    """Where the thresholds of ``steps`` lie, int64 ``[step, channel]``: ``below < threshold <= reached``.

    A threshold that all of ``first`` to ``last`` reach is ``first``; one that none reaches is ``last + 1``.
    ``least`` and ``most`` are the outputs of ``first`` and ``last``.
    """

    def __init__(
        self,
        rounding: Requantization,
        method: Method,
        steps: Array,
        first: Array,
        last: Array,
        least: Array,
        most: Array,
    ) -> None:
        self._outputs = lambda acc: rounding(acc, method)
        self._steps, self._first, self._last = steps, first, last
        never, always = steps > most, steps <= least
        self._below = np.where(never, last, np.where(always, first - 1, first))
        self._reached = np.where(never, last + 1, np.where(always, first, last))

    def tried(self, acc: Array) -> None:
        """Looks whether ``acc`` reaches the steps, where it lies between the bounds."""
        between = (acc > self._below) & (acc < self._reached)
        enough = self._outputs(np.clip(acc, self._first, self._last)) >= self._steps
        self._reached = np.where(between & enough, acc, self._reached)
        self._below = np.where(between & ~enough, acc, self._below)

    def halved(self) -> Array:
        """The thresholds."""
        while (self._reached - self._below > 1).any():
            self.tried(self._below + (self._reached - self._below) // 2)
        return self._reached
