"""An image split into bands of structure size, in integers, so that the bits are equal on every processor.

The stationary wavelet transform "à trous" with the cubic B-spline (1 4 6 4 1) / 16 (Starck, Fadili and
Murtagh, "The undecimated wavelet decomposition and its reconstruction", 2007): band ``j`` is what smoothing
at ``2**j`` pixels takes away, and the bands and the rest add up to the image.
"""

from __future__ import annotations

import numpy as np

from karat24.refimpl.graph import Array

FRACTION = 1 << 16
"""Steps per unit of grey."""
LARGEST_GREY = 8.0
BANDS = 6
PEAK = 0.3
"""Cycles per pixel at which band 0 is strongest; half as many from band to band."""


def fixed_point(grey: Array) -> Array:
    """Grey values as int32 steps of 1 / 65536, clipped to ±8."""
    clipped = np.clip(grey.astype(np.float64), -LARGEST_GREY, LARGEST_GREY)
    steps: Array = np.rint(clipped * FRACTION).astype(np.int32)
    return steps


def split(steps: Array) -> tuple[list[Array], Array]:
    """Bands of an int32 image ``[y, x]``, finest first, and what is left; their sum is the image."""
    bands = []
    for band in range(BANDS):
        smooth = _smoothed(_smoothed(steps, 1 << band, 0), 1 << band, 1)
        bands.append(steps - smooth)
        steps = smooth
    return bands, steps


def energy(band: Array) -> float:
    """Mean square, grey². The sum is of integers, exact in any order for up to 2**24 pixels."""
    return covariance(band, band)


def covariance(first: Array, second: Array) -> float:
    """Mean product of two bands, grey², summed in integers as :func:`energy` does."""
    products = np.multiply(first, second, dtype=np.int64)
    return int(products.sum()) / first.size / FRACTION**2


def local_energy(band: Array, side: int) -> Array:
    """Mean square over the ``side`` × ``side`` pixels around each, side odd; grey², float64 ``[y, x]``."""
    wide = band.astype(np.int64)
    total = wide * wide
    for axis in (0, 1):
        total = _box(total, side, axis)
    result: Array = total / float(side * side * FRACTION**2)
    return result


def _smoothed(steps: Array, gap: int, axis: int) -> Array:
    length = steps.shape[axis]
    padded = _mirrored(steps, 2 * gap, axis)

    def shifted(number: int) -> Array:
        along = slice(number * gap, number * gap + length)
        view: Array = padded[along] if axis == 0 else padded[:, along]
        return view

    # At most 2**19 times 16: within 32 bits. The eighth of a step that is added rounds to nearest.
    total = shifted(1) + shifted(3)
    total *= 4
    total += shifted(0)
    total += shifted(4)
    total += 6 * shifted(2)
    total += 8
    total >>= 4
    return total


def _box(total: Array, side: int, axis: int) -> Array:
    padded = _mirrored(total, side // 2, axis)
    sums = np.cumsum(padded, axis)
    zero = np.zeros_like(np.take(sums, [0], axis))
    sums = np.concatenate([zero, sums], axis)
    length = total.shape[axis]
    result: Array = np.take(sums, range(side, side + length), axis) - np.take(sums, range(length), axis)
    return result


def _mirrored(values: Array, width: int, axis: int) -> Array:
    """Continued by its mirror image on both sides, as often as it takes."""
    pads = [(width, width) if number == axis else (0, 0) for number in range(2)]
    return np.pad(values, pads, mode="symmetric")
