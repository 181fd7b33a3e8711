"""The outline of a sample around the rotation axis."""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.graph import Array


class Outline:
    """A star-shaped outline around the axis: a circle, an ellipse, a rounded box or a lump.

    ``reach`` is its largest radius in pixels; it stays the same at every height.
    """

    def __init__(self, rng: np.random.Generator, size: int, kinds: tuple[str, ...], fill: float) -> None:
        """``fill`` is the chance that the sample is wider than the image and only its inside is seen."""
        self._turns = np.linspace(0.0, 2.0 * math.pi, 360, endpoint=False)
        if rng.random() < fill:
            radius = 0.74 * size
            profile = np.ones(360)
        else:
            radius = size * rng.uniform(0.30, 0.475)
            profile = self._profile(rng, str(rng.choice(kinds)))
        shift = rng.uniform(0.0, 2.0 * math.pi)
        profile = np.interp(self._turns + shift, self._turns, profile, period=2.0 * math.pi)
        self._radii = radius * profile / profile.max()
        self.reach = float(self._radii.max())

    def _profile(self, rng: np.random.Generator, kind: str) -> Array:
        turns = self._turns
        if kind == "circle":
            return np.ones(360)
        if kind == "ellipse":
            return 1.0 / np.hypot(np.cos(turns), np.sin(turns) * rng.uniform(1.1, 1.9))
        if kind == "box":
            power = rng.uniform(4.0, 9.0)
            sides = np.abs(np.cos(turns)) ** power + np.abs(np.sin(turns) * rng.uniform(1.0, 1.7)) ** power
            box: Array = sides ** (-1.0 / power)
            return box
        harmonics = np.arange(2, 12)
        sizes = rng.normal(0.0, 0.14, 10) / harmonics**0.9
        phases = rng.uniform(0.0, 2.0 * math.pi, 10)
        waves = np.cos(harmonics * turns[:, np.newaxis] + phases) @ sizes
        lump: Array = np.maximum(0.45, 1.0 + waves)
        return lump

    def radius(self, x: Array, y: Array) -> Array:
        """The outline's radius in the direction of each point."""
        radius: Array = np.interp(np.arctan2(y, x), self._turns, self._radii, period=2.0 * math.pi)
        return radius

    def room(self, x: Array, y: Array) -> Array:
        """Distance from each point outwards to the outline along its own ray; negative outside."""
        return self.radius(x, y) - np.hypot(x, y)

    def polygon(self, inset: float = 0.0) -> Array:
        """The outline ``inset`` pixels further in: ``[360, 2]``."""
        radii = np.maximum(self._radii - inset, 1.0)
        return np.stack([radii * np.cos(self._turns), radii * np.sin(self._turns)], axis=1)

    def clamp(self, polygon: Array, inset: float) -> Array:
        """Pull vertices beyond the inset outline back onto it, along their rays."""
        x, y = polygon.T
        distance = np.maximum(np.hypot(x, y), 1e-9)
        allowed = np.maximum(self.radius(x, y) - inset, 1.0)
        pulled: Array = polygon * np.minimum(1.0, allowed / distance)[:, np.newaxis]
        return pulled

    def canvas(self, size: int) -> int:
        """Side of the raster that holds the sample: the image's, or wider when the sample is."""
        return max(size, 2 * math.ceil(self.reach) + 6)
