"""What keeps a material from being flat: texture, and small inclusions."""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.graph import Array
from karat24.tomography.imaging.fields import Field, smooth_step


class Texture:
    """Grain, pores and shading laid over everything solid, so that no material is ever flat.

    Returns *added* density: each contribution is in proportion to the density it lies on, so empty space
    stays empty. Every material (every density) shows the second grain at a strength of its own.
    """

    def __init__(self, rng: np.random.Generator, canvas: int, *, strength: float = 1.0) -> None:
        stretch = float(rng.choice([1.0, 1.0, rng.uniform(1.5, 5.0)]))
        direction = rng.uniform(0.0, math.pi)
        self._grain = Field(
            rng, canvas, length=rng.uniform(3.0, 40.0), roughness=rng.uniform(1.1, 2.4),
            stretch=stretch, direction=direction, depth=rng.uniform(4.0, 15.0),
        )  # fmt: skip
        period = math.exp(rng.uniform(math.log(3.0), math.log(16.0)))
        self._woven = Field(
            rng, canvas, period=period, spread=rng.uniform(0.25, 1.2), depth=rng.uniform(3.0, 10.0)
        )
        self._shade = Field(rng, canvas, length=canvas / rng.uniform(2.0, 8.0), roughness=4.0)
        self._grain_size = strength * rng.uniform(0.025, 0.09)
        self._woven_size = strength * rng.uniform(0.02, 0.13)
        self._shade_size = rng.uniform(0.0, 0.08)
        self._pores = rng.uniform(1.7, 2.8) if rng.random() < 0.5 else None
        self._pore_depth = rng.uniform(0.15, 0.8)
        self._sign = float(rng.choice([-1.0, -1.0, 1.0]))
        self._turn, self._phase = rng.uniform(2.0, 9.0), rng.uniform(0.0, 2.0 * math.pi)

    def added(self, density: Array, z: float) -> Array:
        """The density to add to ``density`` ``[canvas, canvas]`` at height ``z``: float32."""
        woven = self._woven.at(z)
        own = 0.5 + 0.5 * np.cos(self._turn * density + self._phase)
        relief = self._grain_size * self._grain.at(z) + self._woven_size * own * woven
        relief += self._shade_size * self._shade.at(z)
        if self._pores is not None:
            relief += self._sign * self._pore_depth * smooth_step(woven, self._pores, 0.6)
        result: Array = (np.maximum(density, 0.0) * np.maximum(relief, -0.9)).astype(np.float32)
        return result


def specks(
    rng: np.random.Generator, reach: float, count: int, *, bright: float = 0.5, largest: float = 4.0
) -> tuple[Array, Array]:
    """Small inclusions, most of them at the limit of resolution: spheres ``[n, 4]`` near z = 0 and the
    density each adds, positive for a share ``bright`` of them."""
    radii = np.exp(rng.uniform(math.log(0.6), math.log(largest), count))
    places = rng.uniform(-1.0, 1.0, (count, 3)) * np.stack(
        [np.full(count, reach), np.full(count, reach), radii + 2.0], axis=1
    )
    size = np.exp(rng.uniform(math.log(0.15), math.log(2.5), count))
    densities = np.where(rng.random(count) < bright, size, -np.minimum(size, 0.9))
    return np.column_stack([places, radii]), densities
