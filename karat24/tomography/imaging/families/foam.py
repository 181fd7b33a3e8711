"""Foam: polyhedral cells with thin walls, or round bubbles in a solid; some cells full, some walls thick."""

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


def build_foam(rng: np.random.Generator, size: int, heights: Array) -> list[SampleSlice]:
    """One slice of the same foam for each height (pixels)."""
    outline = Outline(rng, size, ("circle", "ellipse", "box", "lump", "lump"), fill=0.4)
    canvas = outline.canvas(size)
    largest = max(6.0, size * math.exp(rng.uniform(math.log(0.018), math.log(0.11))))
    smallest = max(2.5, largest * rng.uniform(0.2, 0.95))
    bubbles = pack_spheres(
        rng,
        outline.reach,
        smallest,
        largest,
        fill=rng.uniform(0.5, 1.0),
        skew=rng.uniform(1.0, 3.0),
        touch=0.2,
    )
    solid = rng.uniform(0.6, 1.2)
    gas = -solid * rng.uniform(0.6, 1.0)
    filled = rng.random(len(bubbles)) < rng.choice([0.0, 0.03, 0.12])
    content = np.where(filled, solid * rng.uniform(-0.5, 0.8, len(bubbles)), gas)
    wall = rng.uniform(1.2, 0.25 * smallest + 2.0)
    skin = rng.uniform(0.0, 6.0)
    round_cells = rng.random() < 0.65
    passes = int(rng.integers(1, 4))
    bend = [Field(rng, canvas, length=max(8.0, 2.0 * largest), roughness=4.0, depth=40.0) for _ in range(2)]
    amplitude = rng.uniform(0.0, 0.3) * smallest
    small, small_density = specks(rng, outline.reach, int(rng.integers(10, 300)), bright=0.7, largest=3.0)
    small_inside = outline.room(small[:, 0], small[:, 1]) > small[:, 3]
    small, small_density = small[small_inside], small_density[small_inside]
    texture = Texture(rng, canvas, strength=rng.uniform(0.7, 1.6))

    slices = []
    for z in heights:
        phantom = Phantom.of([], [outline.polygon()], [solid])
        if round_cells:
            indices, polygons = cut_cells(bubbles, float(z), wall)
            planes = [field.at(float(z)) for field in bend]
            cells, densities = [], []
            for index, polygon in zip(indices, polygons, strict=True):
                if area(polygon) < 3.0:
                    continue
                curved = subdivide(round_corners(polygon, passes), 6.0)
                curved = curved + amplitude * np.stack([sample(plane, curved) for plane in planes], axis=1)
                curved = outline.clamp(curved, skin)
                if area(curved) >= 3.0:
                    cells.append(curved)
                    densities.append(float(content[index]))
            phantom += Phantom.of([], cells, densities)
        else:
            hit, discs = cut_spheres(bubbles, float(z))
            inside = outline.room(discs[:, 0], discs[:, 1]) > discs[:, 2] + skin
            hit, discs = hit[inside], discs[inside]
            squeeze = 1.0 - 0.3 * _share_of(bubbles[hit])
            phantom += Phantom.of(
                np.column_stack(
                    [discs[:, :2], discs[:, 2], discs[:, 2] * squeeze, 9.0 * squeeze, content[hit]]
                )
            )
        hit, discs = cut_spheres(small, float(z))
        density = phantom.rasterize(canvas)
        # Specks lie in the walls only: gas holds nothing up.
        held = sample(density, discs[:, :2]) > 0.5 * solid
        specked = np.column_stack([discs, discs[:, 2], np.zeros(len(hit)), small_density[hit]])[held]
        slices.append(SampleSlice(phantom + Phantom.of(specked), texture.added(density, float(z))))
    return slices


def _share_of(spheres: Array) -> Array:
    """A number in 0 … 1 for each sphere that depends on its place only, so it is the same in every slice."""
    share: Array = np.abs(np.sin(spheres[:, 0] * 12.9898 + spheres[:, 1] * 78.233)) % 1.0
    return share
