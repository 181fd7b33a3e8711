"""Kinds of samples that the field scans and :mod:`karat24.tomography.imaging.families` lacks.

Each builds the same sample at several heights, as float32 density ``[canvas, canvas]`` in which void is near
0 and solid near 1. Lengths are in pixels. Held-out kinds measure generalization and are never trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from karat24.refimpl.graph import Array
from karat24.tomography.imaging.field.faint import FaintTexture
from karat24.tomography.imaging.fields import Field, level_set, smooth_step
from karat24.tomography.imaging.outline import Outline
from karat24.tomography.imaging.phantom import Phantom
from karat24.tomography.imaging.sphere_packing import cut_cells, cut_spheres, pack_spheres, round_corners

Build = Callable[[np.random.Generator, int, Array], list[Array]]
"""``(rng, image size, heights) -> one density per height``."""


@dataclass(frozen=True)
class Kind:
    """``code`` enters the seed and must never be reused."""

    code: int
    build: Build
    held_out: bool = False


def contrast(rng: np.random.Generator, least: float = 0.005, most: float = 0.10) -> float:
    """A faint phase's contrast, log-uniform, of either sign."""
    return float(rng.choice([-1.0, 1.0])) * math.exp(rng.uniform(math.log(least), math.log(most)))


def build_concrete(rng: np.random.Generator, size: int, heights: Array) -> list[Array]:
    """Cement with aggregate that differs from it by 0.5 to 10 %, and a few air voids."""
    outline, canvas, body = _body(rng, size)
    largest = size * rng.uniform(0.05, 0.2)
    seeds = pack_spheres(rng, outline.reach, largest * rng.uniform(0.15, 0.5), largest, fill=0.8)
    stones = np.array([contrast(rng) for _ in range(4)])[rng.integers(0, 4, len(seeds))]
    voids = pack_spheres(rng, outline.reach, 1.5, 0.03 * size + 2.0, fill=rng.uniform(0.02, 0.2))
    gap = rng.uniform(1.0, 0.4 * largest)
    texture = FaintTexture(rng, canvas)
    emptiness = rng.uniform(0.6, 1.0)

    def density(z: float) -> Array:
        indices, polygons = cut_cells(seeds, z, gap)
        cells = [round_corners(polygon, 2) for polygon in polygons]
        hit, discs = cut_spheres(voids, z)
        holes = np.column_stack([discs, discs[:, 2], np.zeros(len(hit)), np.full(len(hit), -emptiness)])
        matter: Array = body + Phantom.of(holes, cells, list(stones[indices])).rasterize(canvas) * body
        return matter

    return _stack(density, texture, body, heights)


def build_tissue(rng: np.random.Generator, size: int, heights: Array) -> list[Array]:
    """Soft matter: cloudy regions, membranes and vessels, all within some per cent of each other."""
    _, canvas, body = _body(rng, size)
    clouds = [Field(rng, canvas, length=size * rng.uniform(0.03, 0.15), roughness=3.5) for _ in range(3)]
    sizes = [contrast(rng, 0.01) for _ in clouds]
    sheet = Field(rng, canvas, period=size * rng.uniform(0.06, 0.25), spread=0.4)
    thin, membrane = rng.uniform(0.03, 0.12), contrast(rng, 0.01, 0.2)
    vessels = pack_spheres(rng, 0.5 * canvas, 2.0, 0.03 * size + 3.0, fill=rng.uniform(0.05, 0.3))
    filled = float(rng.choice([contrast(rng, 0.02, 0.2), -0.9]))  # with fluid, or with air
    texture = FaintTexture(rng, canvas)

    def density(z: float) -> Array:
        plane = np.ones((canvas, canvas), np.float32)
        for cloud, strength in zip(clouds, sizes, strict=True):
            plane += np.float32(2.0 * strength) * level_set(cloud.at(z), 0.3)
        plane += np.float32(membrane) * level_set(thin - np.abs(sheet.at(z)), 0.0)
        hit, discs = cut_spheres(vessels, z)
        rows = np.column_stack([discs, discs[:, 2], np.zeros(len(hit)), np.full(len(hit), filled)])
        return body * (plane + Phantom.of(rows).rasterize(canvas))

    return _stack(density, texture, body, heights)


def build_porous(rng: np.random.Generator, size: int, heights: Array) -> list[Array]:
    """Porous rock: rough pores down to the resolution, and a second mineral of nearly the same density."""
    _, canvas, body = _body(rng, size)
    pores = Field(
        rng, canvas, length=size * rng.uniform(0.01, 0.06), roughness=rng.uniform(2.0, 3.5), depth=12.0
    )
    mineral = Field(rng, canvas, length=size * rng.uniform(0.02, 0.08), roughness=2.5, depth=20.0)
    level, second, where = rng.uniform(0.2, 1.2), contrast(rng, 0.01), rng.uniform(0.0, 1.0)
    filling = rng.uniform(0.0, 0.5)
    texture = FaintTexture(rng, canvas)

    def density(z: float) -> Array:
        solid = 1.0 + np.float32(second) * level_set(mineral.at(z), where)
        open_share = level_set(pores.at(z), level)
        return body * (solid * (1.0 - open_share) + np.float32(filling) * open_share)

    return _stack(density, texture, body, heights)


def build_struts(rng: np.random.Generator, size: int, heights: Array) -> list[Array]:
    """A network of rods between neighbouring points of a volume, in marrow of low density that is not
    flat."""
    _, canvas, body = _body(rng, size)
    spacing = size * rng.uniform(0.04, 0.12)
    count = int(min(1500, (canvas / spacing) ** 2 * 3))
    points = rng.uniform(-0.5, 0.5, (count, 3)) * (canvas, canvas, 3.0 * spacing)
    near = np.argsort(((points[:, None] - points[None]) ** 2).sum(axis=2), axis=1)[:, 1:4]
    ends = np.array([(points[a], points[b]) for a in range(count) for b in near[a] if a < b])
    thick = spacing * rng.uniform(0.05, 0.2) * np.exp(0.3 * rng.standard_normal(len(ends))) + 0.6
    marrow = rng.uniform(0.1, 0.6)
    texture = FaintTexture(rng, canvas)
    grid = (np.arange(canvas) - canvas // 2).astype(np.float32)

    def density(z: float) -> Array:
        solid = np.zeros((canvas, canvas), np.float32)
        for (first, last), radius in zip(ends, thick, strict=True):
            _add_rod(solid, grid, first, last, float(radius), z)
        matter: Array = body * (np.float32(marrow) + np.float32(1.0 - marrow) * solid)
        return matter

    return _stack(density, texture, body, heights)


def build_wood(rng: np.random.Generator, size: int, heights: Array) -> list[Array]:
    """Wood: cells in rows with thin walls, growth rings, and contents of the cells that differ slightly."""
    outline, canvas, body = _body(rng, size)
    grid = (np.arange(canvas) - canvas // 2).astype(np.float32)
    pith = rng.uniform(-1.0, 1.0, 2) * size
    radius = np.hypot(grid[:, None] - pith[0], grid[None, :] - pith[1])
    ring = size * rng.uniform(0.1, 0.4)
    bend = Field(rng, canvas, length=0.2 * size, roughness=4.0, depth=60.0)
    cell = rng.uniform(4.0, 0.05 * size + 5.0)
    seeds = pack_spheres(rng, outline.reach, 0.5 * cell, cell, fill=1.0, flat=True)
    contents = 0.2 + np.array([contrast(rng) for _ in range(5)])[rng.integers(0, 5, len(seeds))]
    wall = rng.uniform(1.0, 0.4 * cell)
    early = rng.uniform(0.0, 0.4)
    texture = FaintTexture(rng, canvas)

    def density(z: float) -> Array:
        indices, polygons = cut_cells(seeds, z, wall)
        rings = (radius + 4.0 * bend.at(z)) / ring
        walls = 1.0 - np.float32(early) * smooth_step((rings % 1.0).astype(np.float32), 0.5, 0.6)
        lumen = Phantom.of([], [round_corners(p, 2) for p in polygons], [1.0] * len(polygons))
        filled = Phantom.of([], [round_corners(p, 2) for p in polygons], list(contents[indices]))
        open_share = np.clip(lumen.rasterize(canvas), 0.0, 1.0)
        return body * (walls * (1.0 - open_share) + filled.rasterize(canvas))

    return _stack(density, texture, body, heights)


def build_electrode(rng: np.random.Generator, size: int, heights: Array) -> list[Array]:
    """A battery's electrode: particles, some cracked, a shade apart from each other, in a cloudy binder."""
    outline, canvas, body = _body(rng, size)
    largest = size * rng.uniform(0.03, 0.1)
    spheres = pack_spheres(rng, outline.reach, 0.3 * largest, largest, fill=1.0, touch=0.3)
    shades = np.array([contrast(rng) for _ in range(4)])[rng.integers(0, 4, len(spheres))]
    binder = rng.uniform(0.2, 0.6)
    cracks = Field(rng, canvas, period=largest, spread=0.5, depth=8.0)
    thin, share = rng.uniform(0.01, 0.05), rng.uniform(0.0, 0.8)
    texture = FaintTexture(rng, canvas)

    def density(z: float) -> Array:
        hit, discs = cut_spheres(spheres, z)
        rows = np.column_stack(
            [discs, discs[:, 2], np.zeros(len(hit)), 1.0 - binder + shades[hit]]
        )  # fmt: skip
        particles = Phantom.of(rows).rasterize(canvas)
        open_share = share * level_set(thin - np.abs(cracks.at(z)), 0.0) * (particles > 0.0)
        return body * (np.float32(binder) + particles) * (1.0 - open_share)

    return _stack(density, texture, body, heights)


def build_dense(rng: np.random.Generator, size: int, heights: Array) -> list[Array]:
    """Fine structure that fills the sample: mats of fibres, or granules, from 4 pixels on, of any
    contrast."""
    _, canvas, body = _body(rng, size)
    period = math.exp(rng.uniform(math.log(4.0), math.log(0.08 * size + 4.0)))
    layers = [
        Field(
            rng, canvas, period=period * rng.uniform(0.8, 1.25), spread=rng.uniform(0.2, 0.6),
            stretch=rng.uniform(1.0, 5.0), direction=rng.uniform(0.0, math.pi),
        )
        for _ in range(int(rng.integers(1, 5)))
    ]  # fmt: skip
    crowding = Field(rng, canvas, length=size * rng.uniform(0.1, 0.4), roughness=4.0)
    level, uneven = rng.uniform(0.0, 0.6) + 0.35 * (len(layers) - 1), rng.uniform(0.0, 0.6)
    matrix, filling = rng.uniform(0.0, 0.9), 1.0
    if rng.random() < 0.5:
        matrix, filling = filling, matrix
    texture = FaintTexture(rng, canvas)

    def density(z: float) -> Array:
        highest = np.max([layer.at(z) for layer in layers], axis=0)
        share = level_set(highest - np.float32(uneven) * crowding.at(z), level)
        matter: Array = body * (np.float32(matrix) + np.float32(filling - matrix) * share)
        return matter

    return _stack(density, texture, body, heights)


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "concrete": Kind(101, build_concrete),
        "tissue": Kind(102, build_tissue),
        "porous": Kind(103, build_porous),
        "struts": Kind(104, build_struts),
        "wood": Kind(105, build_wood, held_out=True),
        "electrode": Kind(106, build_electrode, held_out=True),
        "dense": Kind(107, build_dense),
    }
)
"""Every kind by name. The family ``bone`` stands for the field beside those held out here."""

TRAINING_KINDS: tuple[str, ...] = tuple(name for name, kind in KINDS.items() if not kind.held_out)
HELD_OUT_KINDS: tuple[str, ...] = tuple(name for name, kind in KINDS.items() if kind.held_out)


def _body(rng: np.random.Generator, size: int) -> tuple[Outline, int, Array]:
    outline = Outline(rng, size, ("circle", "ellipse", "lump", "box"), fill=0.5)
    canvas = outline.canvas(size)
    return outline, canvas, Phantom.of([], [outline.polygon()], [1.0]).rasterize(canvas).astype(np.float32)


def _stack(
    density: Callable[[float], Array], texture: FaintTexture, body: Array, heights: Array
) -> list[Array]:
    slices = []
    for z in heights:
        plane = density(float(z)).astype(np.float32)
        slices.append((plane + texture.added(plane, body, float(z))).astype(np.float32))
    return slices


def _add_rod(solid: Array, grid: Array, first: Array, last: Array, radius: float, z: float) -> None:
    """Raises ``solid`` to the coverage of a rod with round ends, cut by the plane at ``z``."""
    if min(first[2], last[2]) - radius > z or max(first[2], last[2]) + radius < z:
        return
    low, high = np.minimum(first, last)[:2] - radius - 1, np.maximum(first, last)[:2] + radius + 1
    columns = slice(*np.searchsorted(grid, (low[0], high[0])))
    rows = slice(*np.searchsorted(grid, (low[1], high[1])))
    x, y = grid[columns][None, :] - first[0], grid[rows][:, None] - first[1]
    along = last - first
    share = (x * along[0] + y * along[1] + (z - first[2]) * along[2]) / max(float(along @ along), 1e-9)
    share = np.clip(share, 0.0, 1.0)
    squared = (x - share * along[0]) ** 2 + (y - share * along[1]) ** 2
    distance = np.sqrt(squared + (z - first[2] - share * along[2]) ** 2)
    covered = np.clip(radius - distance + 0.5, 0.0, 1.0).astype(np.float32)
    np.maximum(solid[rows, columns], covered, out=solid[rows, columns])
