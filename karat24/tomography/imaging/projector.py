"""Forward projection of sampled images: along rays for simulation, by pixels for iteration.

:func:`project` is the more faithful of the two (Joseph's method, one sample per row or column crossed).
:func:`splat` is the exact transpose of :func:`fbp.back_project`, which iterative methods need.
Both run over angles in parallel; every angle is its own row, so the bits do not depend on the thread count.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from karat24.refimpl.errors import FeedError
from karat24.refimpl.graph import Array


@njit(cache=True, nogil=True, parallel=True)
def _joseph(image: Array, turned: Array, cosines: Array, sines: Array, bins: int) -> Array:
    size = image.shape[0]
    half = size // 2
    centre = bins // 2
    sinogram = np.zeros((len(cosines), bins), np.float32)
    for angle in prange(len(cosines)):
        c = cosines[angle]
        s = sines[angle]
        # A ray that crosses rows (|cos| ≥ |sin|) meets row y at x = t/c + y·s/c; one that crosses columns
        # meets column x at y = -t/s + x·c/s. Either way position = per_bin·t + slope·line, and the ray
        # is 1/|pivot| long between two lines.
        by_rows = abs(c) >= abs(s)
        lines = image if by_rows else turned
        pivot = c if by_rows else s
        per_bin = 1.0 / c if by_rows else -1.0 / s
        slope = s / c if by_rows else c / s
        length = np.float32(1.0 / abs(pivot))
        out = sinogram[angle]
        for line in range(size):
            values = lines[line]
            origin = slope * (line - half) + half - per_bin * centre  # position of bin 0, in samples
            # Bins whose position lies in [0, size - 1): solve for the two ends, then shrink to whole bins.
            end0 = (0.0 - origin) / per_bin
            end1 = (size - 1.0 - origin) / per_bin
            first = max(0, math.ceil(min(end0, end1) + 1e-9))
            last = min(bins - 1, math.floor(max(end0, end1) - 1e-9))
            for k in range(first, last + 1):
                position = origin + per_bin * k
                index = int(position)
                part = np.float32(position - index)
                left = values[index]
                out[k] += length * (left + part * (values[index + 1] - left))
    return sinogram


def project(image: Array, degrees: Array, bins: int) -> Array:
    """Line integrals of a square ``[size, size]`` image: float32 ``[angle, bins]`` (Joseph 1982).

    The image is read with linear interpolation once in every row (or column) the ray crosses; outside the
    outermost pixels' centres it is zero, so leave a margin of one empty pixel around a finite object.
    """
    if image.ndim != 2 or image.shape[0] != image.shape[1]:
        raise FeedError(f"image has shape {image.shape}; expected a square [size, size]")
    radians = np.deg2rad(degrees)
    straight = np.ascontiguousarray(image, np.float32)
    turned = np.ascontiguousarray(image.T, np.float32)
    sinogram: Array = _joseph(straight, turned, np.cos(radians), np.sin(radians), bins)
    return sinogram


@njit(cache=True, nogil=True, parallel=True)
def _splat(image: Array, cosines: Array, sines: Array, bins: int) -> Array:
    size = image.shape[0]
    half = size // 2
    centre = bins // 2
    sinogram = np.zeros((len(cosines), bins), np.float32)
    for angle in prange(len(cosines)):
        c = cosines[angle]
        s = sines[angle]
        # float64, as thousands of pixels meet in one bin; two copies, so that neighbouring columns, which
        # often meet in one bin, need not wait for each other.
        even = np.zeros(bins + 1)
        odd = np.zeros(bins + 1)
        for row in range(size):
            values = image[row]
            start = (0 - half) * c - (row - half) * s + centre
            stop = (size - 1 - half) * c - (row - half) * s + centre
            inside = min(start, stop) >= 0.0 and max(start, stop) <= bins - 1
            for column in range(size):
                t = ((column - half) * c - (row - half) * s) + centre
                if inside or 0.0 <= t <= bins - 1:
                    index = np.uint32(np.int32(t))
                    value = float(values[column])
                    share = (t - index) * value
                    if column & 1:
                        odd[index] += value - share
                        odd[index + np.uint32(1)] += share
                    else:
                        even[index] += value - share
                        even[index + np.uint32(1)] += share
        for k in range(bins):
            sinogram[angle, k] = even[k] + odd[k]
    return sinogram


def splat(image: Array, degrees: Array, bins: int) -> Array:
    """Project by sharing each pixel between the two bins nearest to its centre: float32 ``[angle, bins]``.

    The exact transpose of unfiltered back projection with linear interpolation. Coarser than :func:`project`
    (pixels beat against bins near 45 degrees), but an iterative method converges only with a matched pair.
    """
    if image.ndim != 2 or image.shape[0] != image.shape[1]:
        raise FeedError(f"image has shape {image.shape}; expected a square [size, size]")
    radians = np.deg2rad(degrees)
    sinogram: Array = _splat(np.ascontiguousarray(image, np.float32), np.cos(radians), np.sin(radians), bins)
    return sinogram
