"""Faint patterns that are laid over patches and their targets alike.

Whatever is in a patch, its restoration must show a faint pattern that was added to it: a network that wipes
out structure of little contrast is then wrong by the whole pattern.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from karat24.refimpl.errors import UsageError
from karat24.tomography.imaging.fields import Field, level_set

Float = NDArray[np.float32]

CANVAS, PATTERNS = 256, 96
LONGEST = 64.0
"""The longest period of the patterns, pixels."""
WEAKEST, STRONGEST = 0.006, 0.08
"""Their contrast, grey."""
SHARE = 0.5
"""The share of patches that get a pattern."""


class Planting:
    """A stock of patterns, waves and spots with edges, with periods from ``shortest`` pixels on; seeded.

    Noise of a reconstruction is strong at short periods: a network that lets short patterns through lets
    noise through.
    """

    def __init__(self, seed: int, shortest: float) -> None:
        if not 2.0 <= shortest <= LONGEST:
            raise UsageError(f"patterns with periods from {shortest} pixels on: give 2 to {LONGEST:g}")
        rng = np.random.default_rng([seed, 1])
        self._patterns = [_pattern(rng, shortest, number % 2 == 0) for number in range(PATTERNS)]

    def draw(self, rng: np.random.Generator, size: int) -> Float:
        """A pattern, or nothing in a share of all cases: grey ``[size, size]``, at most :data:`CANVAS`."""
        if rng.random() >= SHARE:
            return np.zeros((size, size), np.float32)
        return self.draw_any(rng, size)

    def draw_any(self, rng: np.random.Generator, size: int) -> Float:
        """A pattern, grey ``[size, size]``."""
        pattern = self._patterns[rng.integers(PATTERNS)]
        y, x = rng.integers(CANVAS - size + 1, size=2)
        contrast = math.exp(rng.uniform(math.log(WEAKEST), math.log(STRONGEST))) * rng.choice([-1.0, 1.0])
        return pattern[y : y + size, x : x + size] * np.float32(contrast)


def _pattern(rng: np.random.Generator, shortest: float, spots: bool) -> Float:
    period = math.exp(rng.uniform(math.log(shortest), math.log(LONGEST)))
    plane = Field(rng, CANVAS, period=period, spread=rng.uniform(0.2, 0.6)).at(0.0)
    return level_set(plane, rng.uniform(0.0, 1.0)) if spots else plane * np.float32(0.5)
