"""Tables of 513 int16 entries, read with linear interpolation. TFLite ``kernels/internal/common.h``."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from karat24.refimpl.graph import Array

STEPS = 512


def function_table(function: Callable[[float], float], low: float, high: float) -> Array:
    """``2^15 * function`` at 513 places from ``low`` to ``high``, int64 [513].

    Each entry but the last is corrected by half of the error that linear interpolation to the next entry has
    in the middle (TFLite ``LUTPopulateInt16``).
    """
    step = (high - low) / STEPS
    table = np.empty(STEPS + 1, np.int64)
    for index in range(STEPS):
        here = function(low + index * step) * 2.0**15
        middle = function(low + index * step + step / 2) * 2.0**15
        after = function(low + (index + 1) * step) * 2.0**15
        on_line = _round((after + _round(here)) / 2)
        bias = _round((on_line - _round(middle)) / 2)
        table[index] = min(max(_round(here) - bias, -32768), 32767)
    table[STEPS] = min(max(_round(function(high) * 2.0**15), -32768), 32767)
    return table


def look_up(table: Array, value: Array) -> Array:
    """The table's function at int16 values held in int64: 9 bits choose an entry, 7 interpolate."""
    index = 256 + (value >> 7)
    slope = table[index + 1] - table[index]
    return np.asarray(table[index] + ((slope * (value & 127) + 64) >> 7))


def _round(value: float) -> float:
    """Rounds to the nearest whole number, ties away from zero."""
    return math.copysign(math.floor(abs(value) + 0.5), value)
