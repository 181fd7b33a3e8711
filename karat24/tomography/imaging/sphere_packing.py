"""Packing a volume: spheres that do not overlap, and the cells between them.

A sphere packing gives granular matter and bubbles; its Laguerre tessellation (the power diagram, in which a
larger sphere gets a larger cell) gives polyhedral foam and interlocking grains. Only the part of the volume
that the wanted slices cut is packed. All lengths in pixels.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from karat24.refimpl.graph import Array


def pack_spheres(
    rng: np.random.Generator,
    reach: float,
    smallest: float,
    largest: float,
    *,
    fill: float = 1.0,
    flat: bool = False,
    touch: float = 0.0,
    skew: float = 2.0,
) -> Array:
    """Spheres in ``|x|, |y| ≤ reach`` that meet the slices near z = 0: float64 ``[n, 4]`` of x, y, z, radius.

    Random sequential addition, large ones first. Radii lie between ``smallest`` and ``largest`` with density
    falling as ``radius ** -skew``. ``fill`` (0 … 1) scales the number of tries. ``touch`` is the largest
    relative growth afterwards, until the nearest neighbour is reached. ``flat`` packs discs in the plane.
    """
    depth = 0.0 if flat else 1.2 * largest
    count = 4000
    u = rng.random(count)
    power = 1.0 - skew
    if abs(power) < 1e-9 or largest / smallest < 1.001:
        radii = smallest * (largest / smallest) ** u
    else:
        radii = (smallest**power + u * (largest**power - smallest**power)) ** (1.0 / power)
    # Enough tries to reach about nine tenths of what random addition can fill, within a fixed budget.
    volume = math.pi * radii**2 if flat else 4.0 / 3.0 * math.pi * radii**3
    space = (2.0 * reach) ** 2 * (1.0 if flat else 2.0 * max(depth, 1.0))
    wanted = int(min(20_000, max(8.0, 5.0 * fill * space / float(volume.mean()))))
    radii = np.sort(rng.choice(radii, wanted))[::-1]
    places = rng.uniform(-1.0, 1.0, (wanted, 3)) * (reach, reach, depth)
    spheres: Array = np.column_stack([places, radii])
    spheres = spheres[_fits(spheres, largest, reach)]
    if touch > 0.0:
        _grow(spheres, touch)
    return spheres


@njit(cache=True, nogil=True)
def _fits(spheres: Array, largest: float, reach: float) -> Array:
    """Which of the spheres, taken in order, overlap none kept before; a grid of cells finds neighbours."""
    keep = np.zeros(len(spheres), np.bool_)
    cell = max(2.0 * largest, 1.0)
    across = int(2.0 * reach / cell) + 1
    head = np.full((across, across), -1, np.int64)
    following = np.full(len(spheres), -1, np.int64)
    for item in range(len(spheres)):
        x, y, z, radius = spheres[item]
        column = min(across - 1, int((x + reach) / cell))
        row = min(across - 1, int((y + reach) / cell))
        free = True
        for r in range(max(0, row - 1), min(across, row + 2)):
            for c in range(max(0, column - 1), min(across, column + 2)):
                other = head[r, c]
                while other >= 0 and free:
                    dx = x - spheres[other, 0]
                    dy = y - spheres[other, 1]
                    dz = z - spheres[other, 2]
                    gap = radius + spheres[other, 3]
                    free = dx * dx + dy * dy + dz * dz >= gap * gap
                    other = following[other]
        if free:
            keep[item] = True
            following[item] = head[row, column]
            head[row, column] = item
    return keep


@njit(cache=True, nogil=True)
def _grow(spheres: Array, touch: float) -> None:
    """Let each sphere in turn grow by at most ``touch`` of its radius, up to its nearest neighbour."""
    for item in range(len(spheres)):
        x, y, z, radius = spheres[item]
        room = radius * touch
        for other in range(len(spheres)):
            if other != item:
                dx = x - spheres[other, 0]
                dy = y - spheres[other, 1]
                if abs(dx) < 8.0 * radius + spheres[other, 3] and abs(dy) < 8.0 * radius + spheres[other, 3]:
                    dz = z - spheres[other, 2]
                    gap = math.sqrt(dx * dx + dy * dy + dz * dz) - spheres[other, 3] - radius
                    room = min(room, gap)
        spheres[item, 3] = radius + max(0.0, room)


def cut_spheres(spheres: Array, z: float) -> tuple[Array, Array]:
    """The discs in which the plane at ``z`` cuts spheres: indices ``[m]``, and x, y, radius ``[m, 3]``."""
    left = spheres[:, 3] ** 2 - (spheres[:, 2] - z) ** 2
    hit = np.flatnonzero(left > 0.0)
    return hit, np.column_stack([spheres[hit, :2], np.sqrt(left[hit])])


def cut_cells(spheres: Array, z: float, gap: float) -> tuple[Array, list[Array]]:
    """Sections at ``z`` of the Laguerre cells around the spheres, each ``gap / 2`` inside its faces.

    Returns the spheres' indices ``[m]`` and one convex polygon ``[vertices, 2]`` each; cells that the plane
    misses, or that the gap consumes, are left out.
    """
    reach = 4.0 * float(spheres[:, 3].max()) if len(spheres) else 0.0
    indices: list[int] = []
    polygons: list[Array] = []
    for item in range(len(spheres)):
        if abs(spheres[item, 2] - z) > reach:
            continue
        polygon = _cell(spheres, item, z, gap, reach)
        if len(polygon) >= 3:
            indices.append(item)
            polygons.append(polygon)
    return np.asarray(indices, np.int64), polygons


@njit(cache=True, nogil=True)
def _cell(spheres: Array, item: int, z: float, gap: float, reach: float) -> Array:
    """Cut a square by the half-plane nearer (in power distance) to ``item`` than to each neighbour."""
    x, y, height, radius = spheres[item]
    polygon = np.empty((64, 2))
    polygon[0] = (x - reach, y - reach)
    polygon[1] = (x + reach, y - reach)
    polygon[2] = (x + reach, y + reach)
    polygon[3] = (x - reach, y + reach)
    count = 4
    kept = np.empty((64, 2))
    own = (height - z) ** 2 - radius * radius
    for other in range(len(spheres)):
        dx = spheres[other, 0] - x
        dy = spheres[other, 1] - y
        distance = math.sqrt(dx * dx + dy * dy)
        if other == item or distance > 2.0 * reach:
            continue
        # |p - q|² + own ≤ |p - other|² + theirs, as (p - q)·d ≤ bound
        theirs = (spheres[other, 2] - z) ** 2 - spheres[other, 3] ** 2
        bound = 0.5 * (distance * distance + theirs - own) - 0.5 * gap * distance
        found = 0
        for k in range(count):
            ax, ay = polygon[k, 0] - x, polygon[k, 1] - y
            bx, by = polygon[(k + 1) % count, 0] - x, polygon[(k + 1) % count, 1] - y
            here = ax * dx + ay * dy - bound
            there = bx * dx + by * dy - bound
            if here <= 0.0 and found < 64:
                kept[found] = (ax + x, ay + y)
                found += 1
            if (here < 0.0 < there or there < 0.0 < here) and found < 64:
                part = here / (here - there)
                kept[found] = (ax + part * (bx - ax) + x, ay + part * (by - ay) + y)
                found += 1
        count = found
        if count < 3:
            return polygon[:0]
        for k in range(count):
            polygon[k] = kept[k]
    return polygon[:count].copy()


def round_corners(polygon: Array, passes: int = 2, cut: float = 0.25) -> Array:
    """Cut every corner at ``cut`` of its sides, ``passes`` times (Chaikin): smooth outlines, no overlap."""
    for _ in range(passes):
        following = np.roll(polygon, -1, axis=0)
        near = (1.0 - cut) * polygon + cut * following
        far = cut * polygon + (1.0 - cut) * following
        polygon = np.stack([near, far], axis=1).reshape(-1, 2)
    return polygon


def subdivide(polygon: Array, longest: float) -> Array:
    """Split sides so that none is longer than ``longest`` pixels."""
    following = np.roll(polygon, -1, axis=0)
    lengths = np.hypot(*(following - polygon).T)
    parts = np.maximum(1, np.ceil(lengths / longest)).astype(np.int64)
    start = np.repeat(polygon, parts, axis=0)
    step = np.repeat((following - polygon) / parts[:, np.newaxis], parts, axis=0)
    order = np.concatenate([np.arange(n) for n in parts])
    result: Array = start + order[:, np.newaxis] * step
    return result


def area(polygon: Array) -> float:
    """Area of a polygon in square pixels, without its sign."""
    following = np.roll(polygon, -1, axis=0)
    return abs(float(np.sum(polygon[:, 0] * following[:, 1] - following[:, 0] * polygon[:, 1]))) / 2.0
