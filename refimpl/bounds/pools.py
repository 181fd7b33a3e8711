"""The interval of float32 means over windows: sums of the taps inside an image, divided by a count."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.bounds.interval import TINY, Interval
from karat24.refimpl.bounds.sums import rounded_sum, subnormal
from karat24.refimpl.graph import Array
from karat24.refimpl.spec.shared.geometry import Window


def means(over: tuple[Window, Window], data: Array, divisor: Array) -> Interval:
    """Images ``[batch, y, x, channel]``; ``divisor`` ``[out_y, out_x, 1]`` is what each sum is divided by.

    The division is one rounding, or two as a product with a rounded reciprocal, before the sum or behind it.
    """
    taps = over[0].taps * over[1].taps
    values = data.astype(np.float64)
    lost = _sums(over, subnormal(data)) + 2 * (taps + 2) * TINY
    return rounded_sum(_sums(over, values), _sums(over, np.abs(values)), taps + 1, lost, divisor)


def counts(over: tuple[Window, Window]) -> Array:
    """How many taps of each window lie inside the image, ``[out_y, out_x, 1]``."""
    ones = np.ones((1, over[0].input_size, over[1].input_size, 1))
    return np.asarray(_sums(over, ones)[0])


def _sums(over: tuple[Window, Window], data: Array) -> Array:
    over_y, over_x = over
    result = np.zeros((data.shape[0], over_y.output_size, over_x.output_size, data.shape[3]))
    for tap_y in range(over_y.taps):
        out_y, in_y = over_y.taken(tap_y)
        for tap_x in range(over_x.taps):
            out_x, in_x = over_x.taken(tap_x)
            result[:, out_y[:, None], out_x] += data[:, in_y][:, :, in_x]
    return result
