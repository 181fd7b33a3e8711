"""The parallel-beam geometry every module here shares, and the angles of a scan.

An image is ``[row, column]``, square, and the rotation axis stands on the *centre of pixel*
``(size // 2, size // 2)``. With ``x = column - size // 2`` and ``y = row - size // 2`` (y points down), the
detector coordinate of a point under angle θ is::

    t = x·cos θ - y·sin θ          the ray through it runs along (sin θ, cos θ)

A sinogram is ``[angle, bin]``; bin ``k`` of ``bins`` is centred at ``t = k - bins // 2`` and one pixel wide.
This is scikit-image's convention (``radon``/``iradon``), transposed: there the bins come first.
Lengths are in pixels, attenuation is in 1/pixel, so a sinogram has no unit.
"""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.errors import FeedError
from karat24.refimpl.graph import Array


def detector_bins(size: int) -> int:
    """The number of bins that see a square image of ``size`` pixels whole under every angle."""
    return math.ceil(math.sqrt(2.0) * size) + 2


def even_angles(count: int, start: float = 0.0) -> Array:
    """``count`` angles in degrees, evenly over half a turn from ``start``: float64 ``[count]``."""
    return start + 180.0 * np.arange(count) / count


def check_sinogram(sinogram: Array, degrees: Array) -> None:
    """Refuse with :class:`FeedError` what is not a finite ``[angle, bin]`` sinogram for ``degrees``."""
    if sinogram.ndim != 2 or 0 in sinogram.shape:
        raise FeedError(f"sinogram has shape {sinogram.shape}; expected [angle, bin], neither empty")
    if degrees.ndim != 1 or len(degrees) != len(sinogram):
        raise FeedError(
            f"sinogram has {len(sinogram)} rows but degrees has shape {degrees.shape}; give one angle a row "
            "(a scikit-image sinogram is [bin, angle]: pass its transpose)"
        )
    if sinogram.dtype.kind not in "fiu":
        raise FeedError(f"sinogram has dtype {sinogram.dtype}; expected real numbers")
    if not np.isfinite(degrees).all():
        raise FeedError("degrees holds NaN or infinity; give finite angles")
    if not np.isfinite(sinogram).all():
        bad = int(sinogram.size - np.count_nonzero(np.isfinite(sinogram)))
        raise FeedError(
            f"sinogram holds NaN or infinity in {bad} of {sinogram.size} bins; mask or replace them"
        )
