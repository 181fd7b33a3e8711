"""A sample of no real material: ellipses and polygons of all sizes, faint and strong, bright and dark.

It keeps a network from learning what belongs into a picture: size, shape and contrast are independent here.
"""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.graph import Array
from karat24.tomography.imaging.fields import Field, level_set
from karat24.tomography.imaging.outline import Outline
from karat24.tomography.imaging.phantom import Phantom
from karat24.tomography.imaging.sample_slice import SampleSlice
from karat24.tomography.imaging.sphere_packing import subdivide
from karat24.tomography.imaging.texture import Texture


def build_mixture(rng: np.random.Generator, size: int, heights: Array) -> list[SampleSlice]:
    """One slice of the same sample for each height (pixels)."""
    outline = Outline(rng, size, ("circle", "ellipse", "box", "lump", "lump"), fill=0.45)
    canvas = outline.canvas(size)
    count = int(rng.integers(60, 900))
    largest = rng.uniform(0.03, 0.2) * size
    radius = np.exp(rng.uniform(math.log(0.9), math.log(largest), count))
    # Large shapes are rarer, or they would bury the small ones.
    radius = radius[rng.random(count) < np.minimum(1.0, 0.02 * size / radius)]
    count = len(radius)
    x, y = rng.uniform(-outline.reach, outline.reach, (2, count))
    depth = rng.uniform(-0.7, 0.7, count) * radius
    thin = np.exp(rng.uniform(math.log(0.2), 0.0, count))
    direction = rng.uniform(0.0, math.pi, count)
    contrast = np.exp(rng.uniform(math.log(0.04), math.log(0.9), count))
    contrast *= np.where(rng.random(count) < rng.uniform(0.3, 0.8), 1.0, -0.75)
    kept = outline.room(x, y) > radius
    cornered = rng.random(count) < 0.4
    corners = rng.integers(3, 9, count)
    spokes = rng.uniform(0.35, 1.0, (count, 9))
    base = rng.uniform(0.7, 1.1)
    blobs = Field(rng, canvas, length=size * rng.uniform(0.02, 0.1), roughness=4.0)
    blob_level, blob_size = rng.uniform(0.4, 2.0), rng.uniform(-0.5, 0.6)
    drift = rng.uniform(-0.15, 0.15, (count, 2))
    texture = Texture(rng, canvas, strength=rng.uniform(0.5, 1.5))

    slices = []
    for z in heights:
        # Each shape is cut through an ellipsoid-like body: it swells and shrinks with height, and drifts.
        scale = np.sqrt(np.maximum(0.0, 1.0 - ((depth - z) / (1.3 * radius + 1.0)) ** 2))
        ellipses, polygons, densities = [], [outline.polygon()], [base]
        for i in np.flatnonzero(kept & (radius * scale * thin > 0.3)):
            a, b = radius[i] * scale[i], radius[i] * scale[i] * thin[i]
            cx, cy = x[i] + drift[i, 0] * z, y[i] + drift[i, 1] * z
            if not cornered[i]:
                ellipses.append((cx, cy, a, b, direction[i], contrast[i]))
                continue
            n = corners[i]
            turns = 2.0 * math.pi * np.arange(n) / n
            u, v = a * spokes[i, :n] * np.cos(turns), b * spokes[i, :n] * np.sin(turns)
            c, s = math.cos(direction[i]), math.sin(direction[i])
            polygons.append(subdivide(np.stack([cx + c * u - s * v, cy + s * u + c * v], axis=1), 1e9))
            densities.append(float(contrast[i]))
        phantom = Phantom.of(ellipses, polygons, densities)
        density = phantom.rasterize(canvas)
        patches = np.maximum(density, 0.0) * np.float32(blob_size) * level_set(blobs.at(float(z)), blob_level)
        raster = patches + texture.added(density + patches, float(z))
        # Overlapping dark shapes may add up to less than nothing; the raster makes up for it.
        raster += np.maximum(0.0, -(density + raster))
        slices.append(SampleSlice(phantom, raster))
    return slices
