"""Distorted images, repeatable from a seed: noise, blur and occlusion as the selective paper has them.

Images are float ``[number, y, x, channel]`` in 0 … 1, and so are the results. An image's distortion depends
on the seed and the image's number alone, not on how many there are. The paper prints the noise's deviation,
the blur's and the block's size; that pixels are in 0 … 1, noise is clipped, and the block lies anywhere
inside the image and is black, are choices made here.

Source: "Selective Deep Convolutional Neural Network for Low Cost Distorted Image Classification".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from karat24.refimpl.errors import FeedError, UsageError
from karat24.refimpl.graph import Array

NOISE, BLUR, BLOCK = 0.25, 1.0, 16
"""Deviation of the noise, deviation of the blur in pixels, side of the block in pixels."""

SHARES = tuple(tenth / 10 for tenth in range(1, 10))
"""Shares of distorted images in a mixture, from 0.1 to 0.9."""


def gaussian_noise(images: Array, degree: float = NOISE, seed: int = 0) -> Array:
    """Adds normal noise of deviation ``degree`` to each value, clipped to 0 … 1. Raises UsageError for a
    negative degree or without scikit-image, FeedError for images that are none."""
    _check(images, degree)
    random_noise = _skimage("util").random_noise
    noisy = [
        random_noise(image.astype(np.float64), "gaussian", rng=stream, mean=0.0, var=degree**2)
        for image, stream in _with_streams(images, seed)
    ]
    return np.array(noisy, np.float32).reshape(images.shape)


def gaussian_blur(images: Array, degree: float = BLUR, seed: int = 0) -> Array:  # noqa: ARG001 - as the others
    """Blurs each channel with a Gaussian of deviation ``degree`` pixels, the border's pixels repeated.
    Nothing is random. Errors are those of :func:`gaussian_noise`."""
    _check(images, degree)
    gaussian = _skimage("filters").gaussian
    blurred = [
        gaussian(image.astype(np.float64), degree, mode="nearest", channel_axis=-1) for image in images
    ]
    return np.clip(np.array(blurred, np.float32), 0, 1).reshape(images.shape)


def occlusion(images: Array, degree: float = BLOCK, seed: int = 0) -> Array:
    """Blackens a square of ``degree`` pixels at a place of its own in each image. Raises UsageError for a
    degree that is not a whole number or larger than the image, FeedError for arrays that are not images."""
    _check(images, degree)
    side, (height, width) = int(degree), images.shape[1:3]
    if side != degree or side > min(height, width):
        raise UsageError(f"a block of {degree} pixels in images of {height}×{width}")
    covered = images.astype(np.float32)
    for image, stream in _with_streams(covered, seed):
        y, x = stream.integers(height - side + 1), stream.integers(width - side + 1)
        image[y : y + side, x : x + side] = 0
    return covered


DISTORTIONS: Mapping[str, Callable[[Array, float, int], Array]] = MappingProxyType(
    {"noise": gaussian_noise, "blur": gaussian_blur, "occlusion": occlusion}
)
"""Distortion by name: a function of images, degree and seed."""

DEGREES: Mapping[str, float] = MappingProxyType({"noise": NOISE, "blur": BLUR, "occlusion": BLOCK})
"""The paper's degree of each."""


def mixture(
    images: Array, distortion: str, share: float, degree: float | None = None, seed: int = 0
) -> tuple[Array, Array]:
    """Images of which ``round(share * number)``, drawn by the seed, are distorted, and which, as booleans.

    Raises UsageError for an unknown distortion or a share outside 0 … 1, and what the distortion raises.
    """
    if distortion not in DISTORTIONS:
        raise UsageError(f"no distortion {distortion!r}; there are {', '.join(DISTORTIONS)}")
    if not 0 <= share <= 1:
        raise UsageError(f"share {share!r} of distorted images is not between 0 and 1")
    chosen = np.zeros(len(images), bool)
    order = np.random.default_rng([seed, len(images)]).permutation(len(images))
    chosen[order[: round(share * len(images))]] = True
    changed = DISTORTIONS[distortion](images, DEGREES[distortion] if degree is None else degree, seed)
    return np.where(chosen[:, None, None, None], changed, images.astype(np.float32)), chosen


def _check(images: Array, degree: float) -> None:
    if images.ndim != 4 or images.dtype.kind != "f":
        raise FeedError(f"images {images.dtype} {list(images.shape)}; give float [number, y, x, channel]")
    if not ((images >= 0) & (images <= 1)).all():
        raise FeedError("images hold values outside 0 … 1; scale them first")
    if not degree >= 0:
        raise UsageError(f"degree {degree!r} of a distortion is negative")


def _with_streams(images: Array, seed: int) -> list[tuple[Array, np.random.Generator]]:
    """Each image with a random stream of its own."""
    return [(image, np.random.default_rng([seed, number])) for number, image in enumerate(images)]


def _skimage(module: str) -> Any:
    try:
        import skimage.filters
        import skimage.util
    except ImportError:
        raise UsageError("distortions need scikit-image: pip install 'karat24[image]'") from None
    return getattr(skimage, module)
