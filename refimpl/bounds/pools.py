"""The interval of float32 means over windows: sums of the taps inside an image, divided by a count."""

from __future__ import annotations

import itertools
import math

import numpy as np

from karat24.refimpl.bounds.interval import TINY, Interval
from karat24.refimpl.bounds.sums import rounded_sum, subnormal
from karat24.refimpl.graph import Array
from karat24.refimpl.spec.shared.geometry import Window, taken_by


def means(over: tuple[Window, ...], data: Array, divisor: Array) -> Interval:
    """Images ``[batch, ..., channel]``; ``divisor`` ``[..., 1]`` is what each sum is divided by.

    The division is one rounding, or two as a product with a rounded reciprocal, before the sum or behind it.
    """
    taps = math.prod(axis.taps for axis in over)
    values = data.astype(np.float64)
    lost = _sums(over, subnormal(data)) + 2 * (taps + 2) * TINY
    return rounded_sum(_sums(over, values), _sums(over, np.abs(values)), taps + 1, lost, divisor)


def counts(over: tuple[Window, ...]) -> Array:
    """How many taps of each window lie inside the image, ``[..., 1]``."""
    ones = np.ones((1, *(axis.input_size for axis in over), 1))
    return np.asarray(_sums(over, ones)[0])


def _sums(over: tuple[Window, ...], data: Array) -> Array:
    result = np.zeros((data.shape[0], *(axis.output_size for axis in over), data.shape[-1]))
    for taps in itertools.product(*(range(axis.taps) for axis in over)):
        out, taken = taken_by(over, taps)
        result[(slice(None), *out)] += data[(slice(None), *taken)]
    return result
