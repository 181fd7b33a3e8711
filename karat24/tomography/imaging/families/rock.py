"""Layered rock: bent beds, fine lamination, cracks along and across them, bright minerals, dark lenses."""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.graph import Array
from karat24.tomography.imaging.fields import Field, rough_profile, sample
from karat24.tomography.imaging.outline import Outline
from karat24.tomography.imaging.phantom import Phantom
from karat24.tomography.imaging.sample_slice import SampleSlice
from karat24.tomography.imaging.sphere_packing import cut_spheres
from karat24.tomography.imaging.texture import Texture, specks


def build_rock(rng: np.random.Generator, size: int, heights: Array) -> list[SampleSlice]:
    """One slice of the same rock for each height (pixels)."""
    outline = Outline(rng, size, ("circle", "circle", "lump", "box"), fill=0.45)
    canvas = outline.canvas(size)
    direction = rng.uniform(0.0, math.pi)  # of the beds
    c, s = math.cos(direction), math.sin(direction)
    grid = np.arange(canvas) - canvas // 2
    height = (c * grid[:, np.newaxis] - s * grid[np.newaxis, :]).astype(np.float32)  # across the beds
    bend = Field(
        rng,
        canvas,
        length=size * rng.uniform(0.1, 0.4),
        roughness=4.0,
        stretch=2.0,
        direction=direction,
        depth=60.0,
    )
    ripple = Field(
        rng, canvas, length=rng.uniform(6.0, 25.0), roughness=2.5, stretch=3.0, direction=direction
    )
    bend_size, ripple_size = rng.uniform(2.0, 2.0 + 0.06 * size), rng.uniform(0.3, 3.0)
    dip = rng.uniform(-0.5, 0.5)  # beds rise from slice to slice
    profile = _bedding(rng, 4 * canvas, size)
    mottle = Field(
        rng, canvas, length=rng.uniform(4.0, 30.0), roughness=rng.uniform(1.2, 2.0),
        stretch=rng.uniform(1.5, 8.0), direction=direction, depth=6.0,
    )  # fmt: skip
    mottle_size = rng.uniform(0.03, 0.12)
    cracks = [_crack(rng, outline.reach, direction) for _ in range(int(rng.integers(0, 9)))]
    waviness = Field(rng, canvas, length=rng.uniform(5.0, 20.0), roughness=2.5, depth=20.0)
    minerals, mineral_density = specks(
        rng,
        outline.reach,
        int(rng.integers(30, 900)),
        bright=rng.uniform(0.4, 0.95),
        largest=0.012 * size + 2.0,
    )
    inside = outline.room(minerals[:, 0], minerals[:, 1]) > minerals[:, 3]
    minerals, mineral_density = minerals[inside], mineral_density[inside]
    lens = np.where(mineral_density > 0.0, 1.0, rng.uniform(1.0, 5.0))  # dark organic matter lies flat
    texture = Texture(rng, canvas)
    body = Phantom.of([], [outline.polygon()], [1.0]).rasterize(canvas)

    slices = []
    for z in heights:
        across = height + bend_size * bend.at(float(z)) + ripple_size * ripple.at(float(z)) + dip * float(z)
        density = np.interp(across, np.arange(len(profile)) - len(profile) // 2, profile).astype(np.float32)
        density *= 1.0 + mottle_size * mottle.at(float(z))
        open_share = np.zeros((canvas, canvas), np.float32)
        plane = waviness.at(float(z))
        for crack in cracks:
            strip = crack.outline(float(z), plane)
            open_share = np.maximum(open_share, Phantom.of([], [strip], [1.0]).rasterize(canvas))
        density = body * np.maximum(density, 0.05) * (1.0 - np.clip(open_share, 0.0, 1.0))
        density += texture.added(density, float(z))
        hit, discs = cut_spheres(minerals, float(z))
        held = sample(density, discs[:, :2]) > 0.3
        grains = np.column_stack(
            [discs[:, :2], discs[:, 2] * np.sqrt(lens[hit]), discs[:, 2] / np.sqrt(lens[hit]),
             np.full(len(hit), direction), mineral_density[hit] * 0.8]
        )[held]  # fmt: skip
        slices.append(SampleSlice(Phantom.of(grains), density))
    return slices


def _bedding(rng: np.random.Generator, count: int, size: int) -> Array:
    """Density against height: beds of very different thickness, plus lamination inside them."""
    profile = np.empty(count)
    position = 0
    thickest = rng.uniform(0.03, 0.25) * size
    spread = rng.uniform(0.03, 0.3)
    while position < count:
        thick = max(2, int(math.exp(rng.uniform(math.log(2.0), math.log(thickest)))))
        profile[position : position + thick] = 1.0 + spread * rng.standard_normal()
        position += thick
    kernel = np.ones(2) / 2.0
    profile = np.convolve(profile, kernel, mode="same")
    profile += rng.uniform(0.01, 0.08) * rough_profile(rng, count, rng.uniform(0.5, 3.0))
    return np.clip(profile, 0.3, 2.0)


class _Crack:
    """A crack as a strip along a jagged line, tapering to its ends and shifting with height."""

    def __init__(self, line: Array, normal: Array, width: Array, drift: float, rough: float) -> None:
        self._line, self._normal, self._width, self._drift, self._rough = line, normal, width, drift, rough

    def outline(self, z: float, plane: Array) -> Array:
        """The strip as a polygon ``[vertices, 2]``; ``plane`` roughens its course."""
        middle = self._line + self._normal * self._drift * z
        middle = middle + self._normal * (self._rough * sample(plane, middle))[:, np.newaxis]
        half = 0.5 * self._width[:, np.newaxis] * self._normal
        return np.concatenate([middle + half, (middle - half)[::-1]])


def _crack(rng: np.random.Generator, reach: float, bedding: float) -> _Crack:
    along_beds = rng.random() < 0.6
    direction = bedding + (0.06 * rng.standard_normal() if along_beds else rng.uniform(0.4, math.pi - 0.4))
    length = reach * rng.uniform(0.2, 2.2)
    count = max(8, int(length / 2.0))
    t = np.linspace(-0.5, 0.5, count)
    start = rng.uniform(-0.8, 0.8, 2) * reach
    forward = np.array([math.cos(direction), math.sin(direction)])
    normal = np.array([-forward[1], forward[0]])
    wander = rough_profile(rng, count, count / rng.uniform(4.0, 20.0)) * length * rng.uniform(0.005, 0.04)
    line = start + length * t[:, np.newaxis] * forward + wander[:, np.newaxis] * normal
    widest = math.exp(rng.uniform(math.log(0.7), math.log(7.0)))
    width = (
        widest
        * np.sqrt(np.maximum(0.0, 1.0 - (2.0 * t) ** 2))
        * np.exp(0.35 * rough_profile(rng, count, 6.0))
    )
    return _Crack(line, normal, width, rng.uniform(-0.6, 0.6), rng.uniform(0.2, 2.5))
