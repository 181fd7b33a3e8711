"""Spongy bone: a network of struts in a shell. Kept out of training, to measure generalization.

Nothing in it resembles the training families' discs, polygons and beds: one connected, saddle-curved phase.
"""

from __future__ import annotations

import numpy as np

from karat24.refimpl.graph import Array
from karat24.tomography.imaging.fields import Field, level_set, sample
from karat24.tomography.imaging.outline import Outline
from karat24.tomography.imaging.phantom import Phantom
from karat24.tomography.imaging.sample_slice import SampleSlice
from karat24.tomography.imaging.sphere_packing import cut_spheres
from karat24.tomography.imaging.texture import Texture, specks


def build_bone(rng: np.random.Generator, size: int, heights: Array) -> list[SampleSlice]:
    """One slice of the same bone for each height (pixels)."""
    outline = Outline(rng, size, ("ellipse", "lump", "lump", "circle"), fill=0.3)
    canvas = outline.canvas(size)
    spacing = size * rng.uniform(0.03, 0.12)
    struts = Field(
        rng, canvas, period=spacing, stretch=rng.uniform(1.0, 1.8), direction=rng.uniform(0.0, 3.1)
    )
    branches = Field(rng, canvas, period=spacing * rng.uniform(0.4, 0.8))
    spread = Field(rng, canvas, length=0.3 * size, roughness=4.0)
    level = rng.uniform(0.1, 0.7)
    sheets = rng.random() < 0.6  # plates around |field| = 0, or rods where the field is high
    marrow = rng.uniform(0.15, 0.55)
    solid = rng.uniform(0.9, 1.3)
    shell = rng.uniform(1.0, 0.05 * size)
    body = Phantom.of([], [outline.polygon()], [1.0]).rasterize(canvas)
    core = Phantom.of([], [outline.polygon(shell)], [1.0]).rasterize(canvas)
    cells, cell_density = specks(rng, outline.reach, int(rng.integers(100, 900)), bright=0.15, largest=3.0)
    inside = outline.room(cells[:, 0], cells[:, 1]) > cells[:, 3]
    cells, cell_density = cells[inside], cell_density[inside]
    texture = Texture(rng, canvas)

    slices = []
    for z in heights:
        field = struts.at(float(z)) + 0.45 * branches.at(float(z))
        local = np.float32(level) + 0.25 * spread.at(float(z))
        phase = (
            level_set(np.maximum(0.15, local) - np.abs(field), 0.0)
            if sheets
            else level_set(field - local, 0.0)
        )
        bone = body * np.maximum(phase, 1.0 - core)
        density = body * np.float32(marrow) + bone * np.float32(solid - marrow)
        hit, discs = cut_spheres(cells, float(z))
        held = sample(bone, discs[:, :2]) > 0.9  # the lacunae in which cells lived
        holes = np.column_stack([discs, discs[:, 2], np.zeros(len(hit)), cell_density[hit] * 0.7])[held]
        slices.append(SampleSlice(Phantom.of(holes), density + texture.added(density, float(z))))
    return slices
