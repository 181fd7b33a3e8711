"""Glass spheres in a container, in air or embedded, some hollow, cracked or with bubbles inside."""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.graph import Array
from karat24.tomography.imaging.outline import Outline
from karat24.tomography.imaging.phantom import Phantom
from karat24.tomography.imaging.sample_slice import SampleSlice
from karat24.tomography.imaging.sphere_packing import cut_spheres, pack_spheres
from karat24.tomography.imaging.texture import Texture, specks


def build_spheres(rng: np.random.Generator, size: int, heights: Array) -> list[SampleSlice]:
    """One slice of the same packing for each height (pixels)."""
    outline = Outline(rng, size, ("circle", "circle", "ellipse", "box", "lump"), fill=0.3)
    canvas = outline.canvas(size)
    wall = rng.uniform(2.0, 0.035 * size + 2.0)
    matrix = 0.0 if rng.random() < 0.35 else rng.uniform(0.15, 0.75)
    wall_density = rng.uniform(0.25, 1.2)
    largest = max(4.0, size * math.exp(rng.uniform(math.log(0.012), math.log(0.10))))
    smallest = max(1.5, largest * rng.uniform(0.12, 0.98))
    spheres = pack_spheres(
        rng, outline.reach, smallest, largest,
        fill=rng.uniform(0.1, 1.0), touch=float(rng.choice([0.0, 0.15, 0.35])), skew=rng.uniform(1.0, 3.0),
    )  # fmt: skip
    spheres = spheres[outline.room(spheres[:, 0], spheres[:, 1]) > spheres[:, 3] + wall]
    count = len(spheres)
    spread = rng.uniform(0.02, 0.3)
    density = rng.uniform(0.85, 1.25) * (1.0 + spread * rng.standard_normal(count).clip(-2.0, 2.0)) - matrix
    # An inner void, off centre: hollow spheres when large, gas bubbles when small.
    hollow = np.where(rng.random(count) < rng.choice([0.0, 0.1, 0.5]), rng.uniform(0.1, 0.9, count), 0.0)
    drift = rng.uniform(-1.0, 1.0, (count, 3)) * ((1.0 - hollow) * spheres[:, 3] * 0.6)[:, np.newaxis]
    voids = np.column_stack([spheres[:, :3] + drift, hollow * spheres[:, 3]])
    small, small_density = specks(
        rng, outline.reach, int(rng.integers(20, 400)), bright=rng.uniform(0.1, 0.9)
    )
    inside = outline.room(small[:, 0], small[:, 1]) > small[:, 3]
    small, small_density = small[inside], small_density[inside]
    texture = Texture(rng, canvas)

    slices = []
    for z in heights:
        rows = []
        for balls, added in ((spheres, density), (voids, -(density + matrix)), (small, small_density * 0.6)):
            hit, discs = cut_spheres(balls, float(z))
            rows.append(np.column_stack([discs, discs[:, 2], np.zeros(len(hit)), added[hit]]))
        phantom = Phantom.of(
            np.concatenate(rows),
            [outline.polygon(), outline.polygon(wall)],
            [wall_density, matrix - wall_density],
        )
        slices.append(SampleSlice(phantom, texture.added(phantom.rasterize(canvas), float(z))))
    return slices
