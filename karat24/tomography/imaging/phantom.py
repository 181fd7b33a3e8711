"""A phantom of ellipses and polygons: its exact projections and its exact area in every pixel.

Shapes add up: each carries the density it adds to what lies below it, so a bubble is a negative ellipse
inside a positive one. Sinogram and raster of one phantom are exact averages, over a bin's width and over a
pixel's area, of the same piecewise constant function; neither is sampled.

Coordinates are those of ``geometry``: x to the right, y down, origin on the rotation axis, in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit, prange

from karat24.refimpl.errors import FeedError
from karat24.refimpl.graph import Array


@dataclass(frozen=True)
class Phantom:
    """``ellipses``: float64 ``[n, 6]`` of centre x, centre y, half-axis a, half-axis b, direction of a
    (radians from x towards y), density. ``polygons``: closed outlines, float64 ``[vertices, 2]`` each, with
    ``densities`` one for each; they need not be convex but must not cross themselves."""

    ellipses: Array
    polygons: tuple[Array, ...] = ()
    densities: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.ellipses.ndim != 2 or self.ellipses.shape[1] != 6:
            raise FeedError(f"ellipses has shape {self.ellipses.shape}; expected [n, 6]")
        if len(self.polygons) != len(self.densities):
            raise FeedError(
                f"{len(self.polygons)} polygons but {len(self.densities)} densities; give one each"
            )

    @staticmethod
    def of(
        ellipses: Sequence[Sequence[float]] | Array = (),
        polygons: Sequence[Array] = (),
        densities: Sequence[float] = (),
    ) -> Phantom:
        """Build from plain lists; any of them may be empty."""
        table = np.asarray(ellipses, np.float64).reshape(-1, 6)
        return Phantom(table, tuple(polygons), tuple(float(density) for density in densities))

    def __add__(self, other: Phantom) -> Phantom:
        return Phantom(
            np.concatenate([self.ellipses, other.ellipses]),
            self.polygons + other.polygons,
            self.densities + other.densities,
        )

    def project(self, degrees: Array, bins: int) -> Array:
        """Line integrals averaged over each bin: float64 ``[angle, bins]``, exact to rounding."""
        radians = np.deg2rad(np.asarray(degrees, np.float64))
        cosines, sines = np.cos(radians), np.sin(radians)
        sinogram = np.zeros((len(radians), bins))
        _project_ellipses(self.ellipses, cosines, sines, sinogram)
        _project_edges(_edges(self.polygons, self.densities), cosines, sines, sinogram)
        return sinogram

    def rasterize(self, size: int) -> Array:
        """Density averaged over each pixel's area: float32 ``[size, size]``.

        Exact for polygons; an ellipse is drawn as a polygon of equal area whose sides are at most about a
        pixel long, so its outline is off by less than a tenth of a pixel.
        """
        outlines = [*self.polygons]
        densities = [*self.densities]
        for x, y, a, b, direction, density in self.ellipses:
            outlines.append(ellipse_outline(x, y, a, b, direction))
            densities.append(density)
        area = np.zeros((size, size + 2))
        edges = _edges(outlines, densities)
        edges[:, :4] += size // 2 + 0.5  # pixel (0, 0) spans 0 … 1
        _accumulate_area(edges, area)
        return np.cumsum(area, axis=1)[:, :size].astype(np.float32)


def ellipse_outline(x: float, y: float, a: float, b: float, direction: float) -> Array:
    """A polygon ``[vertices, 2]`` of the ellipse's own area."""
    count = int(min(512, max(12, 2 * math.ceil(math.pi * max(a, b)))))
    step = 2.0 * math.pi / count
    grow = math.sqrt(step / math.sin(step))  # an inscribed polygon has the area n/2·sin(2π/n)·a·b
    turn = step * np.arange(count)
    u, v = a * grow * np.cos(turn), b * grow * np.sin(turn)
    c, s = math.cos(direction), math.sin(direction)
    return np.stack([x + c * u - s * v, y + s * u + c * v], axis=1)


def _edges(polygons: Sequence[Array], densities: Sequence[float]) -> Array:
    """All sides as float64 ``[n, 5]``: x0, y0, x1, y1, density; outlines turned to one orientation."""
    parts = [np.zeros((0, 5))]
    for polygon, density in zip(polygons, densities, strict=True):
        following = np.roll(polygon, -1, axis=0)
        doubled = np.sum(polygon[:, 0] * following[:, 1] - following[:, 0] * polygon[:, 1])
        weight = np.full((len(polygon), 1), density if doubled >= 0.0 else -density)
        parts.append(np.concatenate([polygon, following, weight], axis=1))
    return np.concatenate(parts)


@njit(cache=True, nogil=True)
def _half_area(position: float) -> float:
    """∫ of 2·sqrt(1 - u²) from -1 to ``position``: area of the unit disc left of it."""
    u = min(1.0, max(-1.0, position))
    return u * math.sqrt(1.0 - u * u) + math.asin(u) + 0.5 * math.pi


@njit(cache=True, nogil=True, parallel=True)
def _project_ellipses(ellipses: Array, cosines: Array, sines: Array, sinogram: Array) -> None:
    """An ellipse seen under any angle is a stretched disc: half-width w with w² = (a·cos)² + (b·sin)²."""
    bins = sinogram.shape[1]
    for angle in prange(len(cosines)):
        c = cosines[angle]
        s = sines[angle]
        for item in range(len(ellipses)):
            x, y, a, b, direction, density = ellipses[item]
            axis_c = math.cos(direction)
            axis_s = math.sin(direction)
            along = a * (c * axis_c - s * axis_s)
            across = b * (-c * axis_s - s * axis_c)
            width = math.sqrt(along * along + across * across)
            if width == 0.0:
                continue
            middle = x * c - y * s + bins // 2
            first = max(0, math.floor(middle - width + 0.5))
            last = min(bins - 1, math.floor(middle + width + 0.5))
            mass = density * a * b
            before = _half_area((first - 0.5 - middle) / width)
            for k in range(first, last + 1):
                after = _half_area((k + 0.5 - middle) / width)
                sinogram[angle, k] += mass * (after - before)
                before = after


@njit(cache=True, nogil=True, parallel=True)
def _project_edges(edges: Array, cosines: Array, sines: Array, sinogram: Array) -> None:
    """The chord through a polygon is the signed sum, over the sides crossed, of the depth of the crossing.

    Along a side the depth is linear in t, so its average over the part of a bin the side covers is the depth
    in the middle of that part.
    """
    bins = sinogram.shape[1]
    for angle in prange(len(cosines)):
        c = cosines[angle]
        s = sines[angle]
        for item in range(len(edges)):
            x0, y0, x1, y1, density = edges[item]
            t0 = x0 * c - y0 * s + bins // 2
            t1 = x1 * c - y1 * s + bins // 2
            if t0 == t1:
                continue
            depth0 = x0 * s + y0 * c
            depth1 = x1 * s + y1 * c
            slope = (depth1 - depth0) / (t1 - t0)
            low = min(t0, t1)
            high = max(t0, t1)
            sign = -density if t1 > t0 else density
            first = max(0, math.floor(low + 0.5))
            last = min(bins - 1, math.floor(high + 0.5))
            for k in range(first, last + 1):
                left = max(low, k - 0.5)
                right = min(high, k + 0.5)
                if right > left:
                    depth = depth0 + slope * (0.5 * (left + right) - t0)
                    sinogram[angle, k] += sign * depth * (right - left)


@njit(cache=True, nogil=True)
def _accumulate_area(edges: Array, area: Array) -> None:
    """Add to ``area`` ``[rows, columns + 2]`` so that its running sum along a row is the covered area.

    A side covers everything to its right; crossing a row by ``dy`` it adds dy·(1 - mean x within the pixel)
    to the pixel it is in and the rest to the next, from where the running sum carries it on. (The method of
    font rasterizers.) Sides left of the image count as lying on its border, sides right of it add nothing.
    """
    rows = area.shape[0]
    columns = area.shape[1] - 2
    for item in range(len(edges)):
        x0, y0, x1, y1, density = edges[item]
        if y0 == y1:
            continue
        # With y down, an outline of positive orientation runs down on its right side.
        sign = density
        if y0 < y1:
            sign = -density
        else:
            x0, y0, x1, y1 = x1, y1, x0, y0
        slope = (x1 - x0) / (y1 - y0)
        for row in range(max(0, math.floor(y0)), min(rows - 1, math.floor(y1)) + 1):
            top = max(y0, float(row))
            bottom = min(y1, row + 1.0)
            if bottom <= top:
                continue
            left = x0 + slope * (top - y0)
            right = x0 + slope * (bottom - y0)
            if left > right:
                left, right = right, left
            height = bottom - top
            span = right - left
            first = max(0, min(columns, math.floor(left)))
            last = max(0, min(columns, math.floor(right)))
            for column in range(first, last + 1):
                # The piece of the side inside this column; the outermost columns take what lies beyond them.
                begin = left if column == first else float(column)
                end = right if column == last else column + 1.0
                share = height if span <= 0.0 or first == last else height * (end - begin) / span
                inside = 0.5 * (begin + end) - column
                inside = min(1.0, max(0.0, inside))
                area[row, column] += sign * share * (1.0 - inside)
                area[row, column + 1] += sign * share * inside
