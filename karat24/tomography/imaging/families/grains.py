"""Packed irregular grains of several minerals, as in sand, soil and polycrystals, with pores between them."""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.graph import Array
from karat24.tomography.imaging.fields import Field, sample
from karat24.tomography.imaging.outline import Outline
from karat24.tomography.imaging.phantom import Phantom
from karat24.tomography.imaging.sample_slice import SampleSlice
from karat24.tomography.imaging.sphere_packing import (
    area,
    cut_cells,
    cut_spheres,
    pack_spheres,
    round_corners,
    subdivide,
)
from karat24.tomography.imaging.texture import Texture, specks


def build_grains(rng: np.random.Generator, size: int, heights: Array) -> list[SampleSlice]:
    """One slice of the same packing for each height (pixels)."""
    outline = Outline(rng, size, ("circle", "lump", "lump", "box", "ellipse"), fill=0.4)
    canvas = outline.canvas(size)
    largest = max(6.0, size * math.exp(rng.uniform(math.log(0.015), math.log(0.09))))
    smallest = max(3.0, largest * rng.uniform(0.15, 0.8))
    seeds = pack_spheres(rng, outline.reach, smallest, largest, fill=rng.uniform(0.4, 1.0), skew=2.5)
    minerals = np.array([1.0, *rng.uniform(0.5, 1.5, 3), rng.uniform(1.5, 2.6)])
    shares = np.array([1.0, *rng.uniform(0.0, 0.5, 3), rng.uniform(0.0, 0.06)])
    kind = rng.choice(5, len(seeds), p=shares / shares.sum())
    pore = float(rng.choice([0.0, rng.uniform(0.1, 0.5), rng.uniform(0.5, 0.95)]))
    lost = rng.random(len(seeds)) < rng.uniform(0.0, 0.2)
    density = minerals[kind] * (1.0 + rng.uniform(0.0, 0.06) * rng.standard_normal(len(seeds))) - pore
    gap = rng.uniform(0.0, 0.35) * smallest
    rough = [
        Field(rng, canvas, length=rng.uniform(4.0, 4.0 + largest), roughness=3.0, depth=25.0)
        for _ in range(2)
    ]
    amplitude = rng.uniform(0.05, 0.35) * smallest
    small, small_density = specks(
        rng, outline.reach, int(rng.integers(20, 500)), bright=rng.uniform(0.2, 0.9)
    )
    inside = outline.room(small[:, 0], small[:, 1]) > small[:, 3]
    small, small_density = small[inside], small_density[inside]
    passes = int(rng.integers(0, 3))
    texture = Texture(rng, canvas, strength=rng.uniform(0.8, 1.8))

    slices = []
    for z in heights:
        indices, polygons = cut_cells(seeds, float(z), gap)
        planes = [field.at(float(z)) for field in rough]
        cells, densities = [outline.polygon()], [pore]
        for index, polygon in zip(indices, polygons, strict=True):
            if lost[index] or area(polygon) < 3.0:
                continue
            outer = subdivide(round_corners(polygon, passes), 3.0)
            outer = outer + amplitude * np.stack([sample(plane, outer) for plane in planes], axis=1)
            outer = outline.clamp(outer, 0.0)
            if area(outer) >= 3.0:
                cells.append(outer)
                densities.append(float(density[index]))
        phantom = Phantom.of([], cells, densities)
        raster = phantom.rasterize(canvas)
        hit, discs = cut_spheres(small, float(z))
        held = sample(raster, discs[:, :2]) > 0.5  # specks sit in grains, not in the pores
        specked = np.column_stack([discs, discs[:, 2], np.zeros(len(hit)), small_density[hit]])[held]
        slices.append(SampleSlice(phantom + Phantom.of(specked), texture.added(raster, float(z))))
    return slices
