"""Restored values as the numbers that are stored: floating point in the volume's unit, or integers asked
for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Array
from karat24.tomography.scan.greyscale import Greyscale

DTYPES = ("float32", "uint16", "uint8")

FEWEST_STEPS = 256
"""A type that tells fewer values than this between black and white apart tells less than the network does."""


@dataclass(frozen=True)
class Encoding:
    """``value = offset + slope · stored``; one pair for the whole volume, kept in its manifest."""

    dtype: str
    slope: float = 1.0
    offset: float = 0.0

    @staticmethod
    def of(dtype: str, measured: np.dtype, scale: Greyscale) -> Encoding:
        """float32 and integers of the volume's own type keep its unit; other integers span black to white.

        Raises UsageError for a unit in which float32 cannot hold the volume: beyond its range, or where a
        small contrast stands on a large offset.
        """
        black, white = scale.black_and_white
        if dtype == "float32":
            _require_steps(black, white)
        if dtype == "float32" or np.dtype(dtype) == measured:
            return Encoding(dtype)
        return Encoding(dtype, (white - black) / float(np.iinfo(dtype).max), black)

    def encode(self, values: Array) -> Array:
        """float64 values ``[y, x]`` → what is stored; integers rounded to even and clipped, NaN as 0."""
        if self.dtype == "float32":
            with np.errstate(over="ignore"):
                return values.astype(np.float32)
        limits = np.iinfo(self.dtype)
        steps = np.rint((np.nan_to_num(values, nan=self.offset) - self.offset) / self.slope)
        stored: Array = np.clip(steps, float(limits.min), float(limits.max)).astype(self.dtype)
        return stored


def _require_steps(black: float, white: float) -> None:
    largest = max(abs(black), abs(white))
    step = float(np.spacing(np.float32(largest))) if largest < float(np.finfo(np.float32).max) else largest
    if (white - black) / step < FEWEST_STEPS:
        raise UsageError(
            f"float32 cannot tell values from {black:.9g} to {white:.9g} apart: its steps there are "
            f"{step:.3g}. Give --dtype uint16, which keeps offset and slope, or subtract the offset first"
        )


def shown(stored: Array, encoding: Encoding) -> Array:
    """Stored numbers as float64 values of the volume's unit."""
    values: Array = stored.astype(np.float64) * encoding.slope + encoding.offset
    return values
