"""Structure of little contrast, in solids and in voids alike: what a restoration is first to lose."""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.graph import Array
from karat24.tomography.imaging.fields import Field, level_set

WEAKEST, STRONGEST = 0.005, 0.10
"""Deviation of the structure, as a share of the sample's span from void to solid."""


class FaintTexture:
    """Two layers of faint structure, each fractal, of one band of wavelengths, or of spots with edges.

    Unlike :class:`karat24.tomography.imaging.texture.Texture` it is not in proportion to the density it lies
    on: a void of low density carries as much of it as a solid, but each density has a strength of its own.
    """

    def __init__(self, rng: np.random.Generator, canvas: int) -> None:
        self._layers = [self._layer(rng, canvas) for _ in range(2)]
        self._turn, self._phase = rng.uniform(1.0, 6.0), rng.uniform(0.0, 2.0 * math.pi)

    @staticmethod
    def _layer(rng: np.random.Generator, canvas: int) -> tuple[Field, float | None, float]:
        strength = math.exp(rng.uniform(math.log(WEAKEST), math.log(STRONGEST)))
        stretch, direction = float(rng.choice([1.0, 1.0, rng.uniform(1.5, 4.0)])), rng.uniform(0.0, math.pi)
        kind = int(rng.integers(0, 3))
        length = math.exp(rng.uniform(math.log(3.0), math.log(40.0)))
        if kind == 0:
            field = Field(
                rng, canvas, length=length, roughness=rng.uniform(1.2, 2.5), stretch=stretch,
                direction=direction, depth=rng.uniform(3.0, 15.0),
            )  # fmt: skip
        else:
            field = Field(
                rng, canvas, period=max(4.0, length), spread=rng.uniform(0.2, 0.8), stretch=stretch,
                direction=direction, depth=rng.uniform(3.0, 10.0),
            )  # fmt: skip
        return field, rng.uniform(0.5, 1.5) if kind == 2 else None, strength

    def added(self, density: Array, body: Array, z: float) -> Array:
        """What to add to ``density`` ``[canvas, canvas]`` at height ``z``, only where ``body`` is 1:
        float32."""
        own = 0.3 + 0.7 * np.cos(self._turn * density + self._phase) ** 2
        relief = np.zeros_like(density)
        for field, level, strength in self._layers:
            plane = field.at(z)
            # Spots cover a share of the area; their deviation is brought to that of the other layers.
            spots = plane if level is None else 2.0 * level_set(plane, level)
            relief += np.float32(strength) * spots
        result: Array = (body * own * relief).astype(np.float32)
        return result
