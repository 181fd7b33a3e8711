"""Inputs of many kinds: what uniform noise never does to a network, other textures do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from karat24.refimpl.graph import Array

Shape = tuple[int, int, int]
"""Height, width and channels."""

Generator = np.random.Generator


def noise(rng: Generator, shape: Shape) -> Array:
    """Uniform."""
    return rng.random(shape)


def faint(rng: Generator, shape: Shape) -> Array:
    """Noise of a lower contrast around a level of each channel."""
    contrast = rng.uniform(0.02, 0.9)
    return np.clip(rng.random(shape[2]) + contrast * (rng.random(shape) - 0.5), 0, 1)


def specks(rng: Generator, shape: Shape) -> Array:
    """Both ends of the range, one of them rarer."""
    return (rng.random(shape) < rng.uniform(0.02, 0.98)).astype(np.float64)


def blocks(rng: Generator, shape: Shape) -> Array:
    """Rectangles of one value each."""
    rows, columns = (rng.integers(1, max(2, size // 2) + 1) for size in shape[:2])
    coarse = np.clip(rng.random((rows, columns, shape[2])) * 1.6 - 0.3, 0, 1)
    at_y, at_x = (
        np.arange(size) * count // size for size, count in zip(shape, coarse.shape[:2], strict=False)
    )
    return np.asarray(coarse[at_y][:, at_x])


def smooth(rng: Generator, shape: Shape) -> Array:
    """Values of a coarse grid joined by straight lines, with some noise."""
    rows, columns = (rng.integers(2, max(3, size // 3) + 1) for size in shape[:2])
    grid = np.clip(rng.random((rows, columns, shape[2])) * 1.8 - 0.4, 0, 1)
    for axis, count in ((0, rows), (1, columns)):
        at = np.linspace(0, count - 1, shape[axis])
        low = np.minimum(at.astype(int), count - 2)
        weight = np.expand_dims(at - low, tuple({0, 1, 2} - {axis}))
        grid = grid.take(low, axis) * (1 - weight) + grid.take(low + 1, axis) * weight
    return np.clip(grid + rng.uniform(0, 0.1) * (rng.random(shape) - 0.5), 0, 1)


def waves(rng: Generator, shape: Shape) -> Array:
    """A sine of any direction and length in each channel."""
    y, x = np.mgrid[: shape[0], : shape[1]][:, :, :, np.newaxis]
    along_y, along_x = rng.uniform(-np.pi, np.pi, (2, shape[2])) * rng.choice([0.05, 0.3, 1.0])
    found = 0.5 + rng.uniform(0.1, 1.0) * np.sin(along_y * y + along_x * x + rng.uniform(0, 7, shape[2]))
    return np.asarray(np.clip(found, 0, 1))


PLAIN: tuple[Callable[[Generator, Shape], Array], ...] = (noise, faint, specks, blocks, smooth, waves)


def mosaic(rng: Generator, shape: Shape) -> Array:
    """A plain kind of its own in each cell of a grid."""
    found = np.empty(shape)
    rows, columns = (int(rng.integers(1, min(4, max(1, size // 4)) + 1)) for size in shape[:2])
    for ys in np.array_split(np.arange(shape[0]), rows):
        for xs in np.array_split(np.arange(shape[1]), columns):
            kind = PLAIN[int(rng.integers(len(PLAIN)))]
            found[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1] = kind(rng, (len(ys), len(xs), shape[2]))
    return found


def drawing(rng: Generator, shape: Shape) -> Array:
    """An image of any kind, float64 of ``shape``, from 0 to 1."""
    return (mosaic if rng.random() < 0.6 else PLAIN[int(rng.integers(len(PLAIN)))])(rng, shape)


def disturbed(rng: Generator, image: Array) -> Array:
    """``image`` with noise, or another drawing in its place."""
    if rng.random() < 0.5:
        return drawing(rng, (image.shape[0], image.shape[1], image.shape[2]))
    return np.clip(image + rng.uniform(0.005, 0.5) * (rng.random(image.shape) - 0.5), 0, 1)


def composed(images: list[Array], chosen: Array) -> Array:
    """An image whose cell ``[row, column]`` is that of ``images[chosen[row, column]]``."""
    at_y, at_x = (
        np.arange(size) * cells // size for size, cells in zip(images[0].shape[:2], chosen.shape, strict=True)
    )
    which = chosen[at_y][:, at_x, np.newaxis]
    result = images[0]
    for number, image in enumerate(images[1:], 1):
        result = np.where(which == number, image, result)
    return result
