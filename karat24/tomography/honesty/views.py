"""How many views a slice was reconstructed from, read off the slice itself.

The transform of a filtered back projection of ``N`` views lies on ``N`` spokes (the Fourier slice theorem).
Where the spokes are further apart than the transform can tell, between them is next to nothing, and the
power along a circle has ``N`` peaks per half turn.

It matters because structure of an object of ``D`` pixels beyond ``N / (π D)`` cycles per pixel returns as
streaks, which look like structure: only below that frequency can the two be told apart from noise.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import map_coordinates, uniform_filter1d

from karat24.refimpl.graph import Array

SMALLEST, LARGEST_CROP = 32, 1024
"""Pixels: smaller slices are not looked at, larger ones in their middle."""
FEWEST = 24
"""Fewer peaks than this are the object's own symmetry."""
PROMINENT, MODULATED, PART = 3e4, 0.35, 0.4
"""Least height of the peak over the median, least deviation of the power along the circle, and least part of
the deviation that a pattern of as many spokes has."""
INNER, OUTER = 0.25, 0.42
"""Circles looked at, cycles per pixel."""
UNSEEN = 0.5
"""Where no spokes show, at least this many views per pixel are assumed."""


def count_views(image: Array) -> int | None:
    """The number of views of a slice ``[y, x]``, None where no spokes show: enough views for its size.

    Angles are taken to be even over half a turn. Slices are judged by their middle.
    """
    side = min(*image.shape, LARGEST_CROP)
    if side < SMALLEST:
        return None
    first = [(length - side) // 2 for length in image.shape]
    middle = image[first[0] : first[0] + side, first[1] : first[1] + side].astype(np.float64)
    window = np.hanning(side)
    tapered = (middle - middle.mean()) * window[:, np.newaxis] * window
    power = np.fft.fftshift(np.abs(np.fft.fft2(tapered, s=(2 * side, 2 * side))) ** 2)
    radii = np.arange(int(INNER * 2 * side), int(OUTER * 2 * side), 2.0)
    if not len(radii) or not power.any():
        return None
    turns = int(math.pi * radii[-1])
    angles = np.arange(turns) * math.pi / turns
    places = [side + np.outer(wave(angles), radii) for wave in (np.sin, np.cos)]
    circles = map_coordinates(power, places, order=1)
    # What varies slowly with the angle is the object's.
    circles /= uniform_filter1d(circles, max(turns // 12, 1), axis=0, mode="wrap") + 1e-30
    profile = circles.mean(axis=1)
    peaks = np.abs(np.fft.rfft(profile - profile.mean())) ** 2
    usual = float(np.median(peaks[FEWEST // 3 :]))
    peaks[:FEWEST] = 0.0
    peaks = peaks[: turns // 2]
    if not len(peaks):
        return None
    number = _lowest_of(peaks, int(peaks.argmax()))
    prominent = peaks[number] > PROMINENT * max(usual, 1e-30)
    return number if prominent and float(profile.std()) > _least_deviation(number, side) else None


def _lowest_of(peaks: Array, number: int) -> int:
    """The number of spokes whose harmonic the highest peak may be."""
    half = number // 2
    near = peaks[max(half - 1, 0) : half + 2]
    if number >= 2 * FEWEST and near.max() > 0.2 * peaks[number]:
        return max(half - 1, 0) + int(near.argmax())
    return number


def _least_deviation(views: int, side: int) -> float:
    """Spokes one sample of the transform wide, ``s`` apart, give the power a variance of nearly ``s / 2 -
    1``."""
    apart = math.pi * 0.5 * (INNER + OUTER) * side / max(views, 1)
    return max(MODULATED, PART * math.sqrt(max(0.45 * apart - 1.0, 0.0)))


def resolved_below(views: int | None, side: int) -> float:
    """Cycles per pixel up to which a slice ``side`` pixels wide holds no streaks."""
    assumed = UNSEEN * min(side, LARGEST_CROP) if views is None else views
    return assumed / (math.pi * side)
