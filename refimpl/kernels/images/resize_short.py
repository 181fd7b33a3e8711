"""Integer bilinear resizing in 16 bits, where the weights allow it.

Sums with weights of 1/1024 or 1/2048 pixel take 32 bits. But a power of two that divides all weights can be
divided out: to double an image, weights are quarters. Then no sum leaves 16 bits, and the two directions are
weighed one after the other, each step exact.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from karat24.refimpl.graph import QUANTIZED_RANGE, Array
from karat24.refimpl.kernels.images.resize_block import Rounding, weigh_columns

_LARGEST = (1 << 15) - 1


class Between(NamedTuple):
    """For each output index along one dimension: the input indices around it and their weights."""

    lower: NDArray[np.int64]
    upper: NDArray[np.int64]
    lower_weight: Array
    upper_weight: Array


def in_short(
    vertical: Between, horizontal: Between, dtype: str, places: int, away: bool
) -> tuple[Between, Between, Rounding] | None:
    """Weights and rounding in 16 bits for :func:`resize_short`; None where a sum might leave 16 bits.

    ``places``: the integer weights of a pixel, one for each direction multiplied, add up to ``2**places``.
    ``away``: ties are rounded away from zero, otherwise up.
    """
    rows = _common_zeros(vertical, places - 1)
    columns = _common_zeros(horizontal, places - 1 - rows)
    left = places - rows - columns
    largest = max(abs(bound) for bound in QUANTIZED_RANGE[dtype])
    sums = largest * (_heaviest(vertical) >> rows) * (_heaviest(horizontal) >> columns)
    if sums + (1 << (left - 1)) > _LARGEST:
        return None
    rounding = Rounding(np.int16(1 << (left - 1)), np.int16(-1 if away else 0), np.int16(left))
    return _shifted(vertical, rows), _shifted(horizontal, columns), rounding


def _common_zeros(between: Between, most: int) -> int:
    """The number of low bits that are 0 in every weight, ``most`` at most."""
    weights = np.concatenate([between.lower_weight, between.upper_weight])
    divisor = int(np.gcd.reduce(weights))
    return min((divisor & -divisor).bit_length() - 1, most)


def _heaviest(between: Between) -> int:
    """The largest sum of the magnitudes of two weights."""
    return int((np.abs(between.lower_weight) + np.abs(between.upper_weight)).max())


def _shifted(between: Between, places: int) -> Between:
    lower, upper = (
        (weights >> places).astype(np.int16) for weights in (between.lower_weight, between.upper_weight)
    )
    return between._replace(lower_weight=lower, upper_weight=upper)


@njit(cache=True, nogil=True)
def resize_short(
    image: Any, vertical: Any, horizontal: Any, rounding: Any, out: Any, begin: int, end: int
) -> None:
    """Two rows weighed into one, then its columns; ``image`` and ``out`` ``[batch, y, x, channel]``."""
    _, out_height, out_width, _ = out.shape
    channels = image.shape[3]
    for row in range(begin, end):
        batch, y = row // out_height, row % out_height
        above = image[batch, vertical.lower[y]].reshape(-1)
        below = image[batch, vertical.upper[y]].reshape(-1)
        above_weight, below_weight = vertical.lower_weight[y], vertical.upper_weight[y]
        mixed = np.empty(above.size, np.int16)
        for i in range(mixed.size):
            mixed[i] = np.int16(above[i] * above_weight + below[i] * below_weight)
        columns, column = mixed.ctypes.data, mixed.itemsize * channels
        for x in range(out_width):
            weigh_columns(
                columns + column * horizontal.lower[x], columns + column * horizontal.upper[x],
                horizontal.lower_weight[x], horizontal.upper_weight[x], rounding,
                channels, out[batch, y, x:].ctypes.data,
            )  # fmt: skip
