"""Staircases: for each channel, the accumulators at which the quantized output goes up by one.

Requantization is monotone in the accumulator, so at most 255 thresholds per channel say everything
about it. Each is found by bisection on the spec: ``out(t - 1) < k <= out(t)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from karat24.refimpl.errors import CannotCompare
from karat24.refimpl.graph import Array
from karat24.refimpl.profiles.rules import Method
from karat24.refimpl.staircase.requantization import Requantization


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
    steps = np.arange(rounding.low + 1, rounding.high + 1)[:, np.newaxis]
    below = np.broadcast_to(first - 1, (len(steps), rounding.channels)).copy()
    reached = np.broadcast_to(last + 1, below.shape).copy()
    # Invariant: below < threshold <= reached, where last + 1 stands for "never".
    while True:
        middle = below + (reached - below) // 2
        undecided = middle > below
        if not undecided.any():
            return Staircase(method, rounding.low, first, last, reached)
        # A decided element's middle may be first - 1, which int32 does not hold.
        high_enough = rounding(np.maximum(middle, first), method) >= steps
        reached = np.where(undecided & high_enough, middle, reached)
        below = np.where(undecided & ~high_enough, middle, below)
