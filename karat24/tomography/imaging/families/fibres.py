"""Fibre composite: bundles of thin fibres, each tilted, in a resin with voids."""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.graph import Array
from karat24.tomography.imaging.outline import Outline
from karat24.tomography.imaging.phantom import Phantom
from karat24.tomography.imaging.sample_slice import SampleSlice
from karat24.tomography.imaging.sphere_packing import pack_spheres
from karat24.tomography.imaging.texture import Texture, specks


def build_fibres(rng: np.random.Generator, size: int, heights: Array) -> list[SampleSlice]:
    """One slice of the same composite for each height (pixels)."""
    outline = Outline(rng, size, ("box", "box", "ellipse", "circle", "lump"), fill=0.35)
    canvas = outline.canvas(size)
    resin = rng.uniform(0.3, 0.8)
    largest = max(2.2, size * math.exp(rng.uniform(math.log(0.004), math.log(0.03))))
    discs = pack_spheres(
        rng, outline.reach, largest * rng.uniform(0.5, 0.95), largest, fill=rng.uniform(0.15, 1.0), flat=True
    )
    # Bundles: strips of the plane in which all fibres lean one way; between some of them lies bare resin.
    bundle = size * rng.uniform(0.05, 0.4)
    direction = rng.uniform(0.0, math.pi)
    strip = np.floor((discs[:, 0] * math.cos(direction) + discs[:, 1] * math.sin(direction)) / bundle + 1e3)
    strips, which = np.unique(strip, return_inverse=True)
    tilts = rng.uniform(0.0, rng.choice([0.1, 0.6, 1.2]), len(strips))[which]
    leaning = rng.choice([0.0, 0.5 * math.pi, rng.uniform(0.0, math.pi)], len(strips))[which]
    leaning = direction + leaning + 0.08 * rng.standard_normal(len(discs))
    kept = (rng.random(len(strips)) > 0.15)[which]
    long_axis = discs[:, 3] / np.cos(tilts)
    kept &= outline.room(discs[:, 0], discs[:, 1]) > long_axis + 3.0
    discs, tilts, leaning, long_axis = discs[kept], tilts[kept], leaning[kept], long_axis[kept]
    density = rng.uniform(0.8, 1.4) * (1.0 + 0.08 * rng.standard_normal(len(discs))) - resin
    hollow = np.where(rng.random(len(discs)) < rng.choice([0.0, 0.0, 0.6]), rng.uniform(0.3, 0.7), 0.0)

    voids, void_density = specks(
        rng, outline.reach, int(rng.integers(20, 400)), bright=0.3, largest=0.02 * size + 4.0
    )
    inside = outline.room(voids[:, 0], voids[:, 1]) > voids[:, 3] + 2.0
    voids, void_density = voids[inside], void_density[inside]
    stretch = rng.uniform(1.0, 3.0)
    texture = Texture(rng, canvas)

    slices = []
    for z in heights:
        # A fibre leaning by `tilts` moves across the slices by z·tan(tilt): its disc moves.
        shift = float(z) * np.tan(tilts)
        x, y = discs[:, 0] + shift * np.cos(leaning), discs[:, 1] + shift * np.sin(leaning)
        fibres = np.column_stack([x, y, long_axis, discs[:, 3], leaning, density])
        cores = np.column_stack([x, y, hollow * long_axis, hollow * discs[:, 3], leaning, -density - resin])
        left = voids[:, 3] ** 2 - (voids[:, 2] - z) ** 2
        cut = left > 0.0
        radius = np.sqrt(left[cut])
        holes = np.column_stack(
            [
                voids[cut, :2],
                radius,
                radius / stretch,
                np.full(len(radius), direction),
                void_density[cut] * resin,
            ]
        )
        phantom = Phantom.of(
            np.concatenate([fibres, cores[hollow > 0.0], holes]), [outline.polygon()], [resin]
        )
        slices.append(SampleSlice(phantom, texture.added(phantom.rasterize(canvas), float(z))))
    return slices
