"""Convolutions of float64 values, plainly: ``[batch, y, x, channel]`` images, OHWI filters, groups.

A convolution may have any number of spatial axes.
"""

from __future__ import annotations

import itertools

import numpy as np

from karat24.refimpl.graph import Array
from karat24.refimpl.spec.shared.geometry import Index, Window, taken_by


def convolve(over: tuple[Window, ...], groups: int, data: Array, weights: Array) -> Array:
    """Sums of products ``[batch, out_y, out_x, out]``; filters ``[out, y, x, in / groups]``."""
    result = np.zeros((data.shape[0], *(axis.output_size for axis in over), weights.shape[0]))
    for taps in itertools.product(*(range(axis.taps) for axis in over)):
        out, taken = taken_by(over, taps)
        tap: Index = (slice(None), *taps)
        result[(slice(None), *out)] += _by_group(data[(slice(None), *taken)], weights[tap], groups)
    return result


def spread(over: tuple[Window, Window], groups: int, data: Array, weights: Array) -> Array:
    """The transposed convolution: an input position is a window on the output. Filters: see ``convolve``."""
    over_y, over_x = over
    shape = (data.shape[0], over_y.input_size, over_x.input_size, weights.shape[0])
    result = np.zeros(shape)
    for tap_y in range(over_y.taps):
        in_y, out_y = over_y.taken(tap_y)
        for tap_x in range(over_x.taps):
            in_x, out_x = over_x.taken(tap_x)
            seen = data[:, in_y][:, :, in_x]
            result[:, out_y[:, None], out_x] += _by_group(seen, weights[:, tap_y, tap_x], groups)
    return result


def _by_group(seen: Array, taps: Array, groups: int) -> Array:
    """Pixels ``[..., in]`` times one tap ``[out, in / groups]``."""
    if groups == 1:
        return np.asarray(seen @ taps.T)
    outputs, deep = taps.shape
    parts = seen.reshape(*seen.shape[:-1], groups, deep)
    products = np.einsum("...gi,goi->...go", parts, taps.reshape(groups, outputs // groups, deep))
    return np.asarray(products.reshape(*seen.shape[:-1], outputs))
