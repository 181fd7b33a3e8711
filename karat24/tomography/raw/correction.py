"""From counts to line integrals, and what detectors add to these."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.errors import FeedError
from karat24.refimpl.graph import Array

LEAST_TRANSMISSION = 1e-4
"""A smaller share of the beam than this, or a negative one, is noise."""


def line_integrals(counts: Array, flat: Array, dark: Array) -> Array:
    """``-log((counts - dark) / (flat - dark))``, float64 ``[view, y, x]``.

    Detector pixels that are as bright in the dark as in the beam take the value of their left neighbour.
    Raises FeedError when no pixel sees the beam, and for NaN and infinity.
    """
    beam = flat - dark
    dead = beam <= 0
    if dead.all():
        raise FeedError("the flat fields are not brighter than the dark ones; are they interchanged?")
    transmission = (counts - dark) / np.where(dead, 1.0, beam)
    if not np.isfinite(transmission).all():
        raise FeedError("the projections hold NaN or infinity; replace them first")
    integrals: Array = -np.log(np.maximum(transmission, LEAST_TRANSMISSION))
    for row, column in np.argwhere(dead):
        integrals[:, row, column] = integrals[:, row, column - 1] if column else 0.0
    return integrals


def without_rings(sinogram: Array, width: int = 9) -> Array:
    """A sinogram ``[view, bin]`` without what a detector pixel adds to all views.

    The mean over the views is smooth in a faultless sinogram. Its difference from its running median over
    ``width`` pixels is taken for the pixels' faults and subtracted (after Boin and Haibel, Optics Express 14,
    2006, with a median in place of their mean). ``width`` 1 changes nothing.
    """
    mean = sinogram.mean(axis=0)
    padded = np.pad(mean, width // 2, mode="edge")
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1)
    corrected: Array = sinogram - (mean - smooth)
    return corrected
