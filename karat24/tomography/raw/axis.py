"""Where the rotation axis stands on the detector."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.errors import FeedError
from karat24.refimpl.graph import Array

LARGEST_OFFSET = 4
"""The axis is looked for within this part of the width to both sides of the middle: width / 4."""
FARTHEST = 5.0
"""Degrees that the opposite view may be off from 180."""


def find_axis(integrals: Array, degrees: Array) -> float:
    """The bin at which the axis stands, to a fraction, from rows of line integrals ``[view, y, x]``.

    A view from the other side is the mirror image: the axis is where the first view and the mirrored one that
    is nearest to half a turn away differ least. Raises FeedError when no view is near that.
    """
    away = np.abs(np.abs(degrees - degrees[0]) - 180.0)
    opposite = int(np.argmin(away))
    if away[opposite] > FARTHEST:
        raise FeedError(
            f"no view lies half a turn from the first (the nearest is {away[opposite]:.1f}° off), so the "
            "axis cannot be found; give it with --center"
        )
    first, mirrored = integrals[0], integrals[opposite][:, ::-1]
    width = first.shape[1]
    reach = width // LARGEST_OFFSET
    # Mirrored about bin c, bin x becomes 2c - x: in the reversed row, a shift by 2c - (width - 1).
    shifts = np.arange(-2 * reach, 2 * reach + 1)
    errors = np.array([_mismatch(first, mirrored, int(shift)) for shift in shifts])
    best = int(np.argmin(errors))
    fraction = 0.0
    if 0 < best < len(errors) - 1:
        left, middle, right = errors[best - 1 : best + 2]
        curvature = left - 2 * middle + right
        fraction = float((left - right) / (2 * curvature)) if curvature > 0 else 0.0
    return float((width - 1 + shifts[best] + fraction) / 2)


def _mismatch(first: Array, mirrored: Array, shift: int) -> float:
    """The mean squared difference where both see the object."""
    width = first.shape[1]
    a = first[:, max(shift, 0) : width + min(shift, 0)]
    b = mirrored[:, max(-shift, 0) : width - max(shift, 0)]
    return float(np.mean((a - b) ** 2))


def centred(sinogram: Array, axis: float) -> Array:
    """A sinogram ``[view, bin]`` moved so that the axis stands at bin ``bins // 2``, read with linear
    interpolation; what lies beyond an end repeats it."""
    bins = sinogram.shape[1]
    places = np.clip(np.arange(bins) + (axis - bins // 2), 0, bins - 1)
    left = np.minimum(places.astype(np.int64), bins - 2)
    part = places - left
    moved: Array = sinogram[:, left] * (1 - part) + sinogram[:, left + 1] * part
    return moved
