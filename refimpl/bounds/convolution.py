"""Convolutions of float64 values, plainly: ``[batch, y, x, channel]`` images, OHWI filters, groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from karat24.refimpl.graph import Array
from karat24.refimpl.spec.shared.geometry import Window


def convolve(over: tuple[Window, Window], groups: int, data: Array, weights: Array) -> Array:
    """Sums of products ``[batch, out_y, out_x, out]``; filters ``[out, y, x, in / groups]``."""
    rows, columns = ([window.taken(tap) for tap in range(window.taps)] for window in over)
    sizes = over[0].output_size, over[1].output_size
    return _sum_of_taps(sizes, rows, columns, groups, data, weights)


def spread(over: tuple[Window, Window], groups: int, data: Array, weights: Array) -> Array:
    """The transpose: windows over the output, whose positions are the inputs'. Filters as in ``convolve``."""
    rows, columns = ([window.taken(tap)[::-1] for tap in range(window.taps)] for window in over)
    sizes = over[0].input_size, over[1].input_size
    return _sum_of_taps(sizes, rows, columns, groups, data, weights)


def _sum_of_taps(
    sizes: tuple[int, int],
    rows: Sequence[tuple[Array, Array]],
    columns: Sequence[tuple[Array, Array]],
    groups: int,
    data: Array,
    weights: Array,
) -> Array:
    """Each tap's products added to an image of ``sizes``; a tap has indices (out, in) along each axis."""
    result = np.zeros((data.shape[0], *sizes, weights.shape[0]))
    for tap_y, (out_y, in_y) in enumerate(rows):
        for tap_x, (out_x, in_x) in enumerate(columns):
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
