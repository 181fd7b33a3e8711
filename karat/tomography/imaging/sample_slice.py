"""What a sample is made of in one slice, and the outline it stands in."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from karat.tomography.imaging.fields import Field, smooth_step
from karat.tomography.imaging.phantom import Shapes
from karat.tomography.imaging.projector import project
from refimpl.graph import Array


@dataclass(frozen=True)
class Section:
    """One slice of a sample: ``shapes`` projected in closed form, plus ``raster`` (float32
    ``[canvas, canvas]``, canvas at least the image's size), whose pixels are the definition of what no closed
    form describes: textures, shading, rough surfaces. Densities are relative, about 1 for solid matter."""

    shapes: Shapes
    raster: Array

    def project(self, degrees: Array, bins: int) -> Array:
        """Line integrals of density (pixels): float32 ``[angle, bins]``."""
        total: Array = (self.shapes.project(degrees, bins) + project(self.raster, degrees, bins)).astype(
            np.float32
        )
        return total

    def rasterize(self, size: int) -> Array:
        """Density of the middle ``[size, size]`` pixels: float32."""
        canvas = len(self.raster)
        first = canvas // 2 - size // 2
        middle: Array = self.shapes.rasterize(size) + self.raster[first : first + size, first : first + size]
        return middle


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
