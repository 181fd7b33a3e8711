"""Pixels that hold no measurement: NaN, a value that the user declares, a constant outside the circle.

Filtered back projection is defined inside the circle that every view sees; programs write 0, -1 or NaN
outside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from karat24.refimpl.graph import Array

Where = Literal["everywhere", "outside the circle"]


@dataclass(frozen=True)
class Mask:
    """Pixels equal to ``value`` (NaN is equal to NaN here) are not measurements.

    Integers count values that are measured inside the circle, too, so a mask of theirs that was found, not
    declared, holds outside of it only.
    """

    value: float
    where: Where

    def of(self, image: Array) -> Array:
        """Where a slice ``[y, x]`` is masked, bool ``[y, x]``."""
        equal = np.isnan(image) if math.isnan(self.value) else image == image.dtype.type(self.value)
        found: Array = equal if self.where == "everywhere" else equal & outside_circle(image.shape)
        return found

    def describe(self) -> str:
        """For people."""
        return f"{self.value:g} {self.where}"


def outside_circle(shape: tuple[int, ...]) -> Array:
    """Whether the centre of a pixel lies outside the largest circle around the middle, bool ``[y, x]``.

    All quantities are doubled, so that they are integers: equal on every machine.
    """
    height, width = shape
    rows = 2 * np.arange(height, dtype=np.int64) - (height - 1)
    columns = 2 * np.arange(width, dtype=np.int64) - (width - 1)
    outside: Array = rows[:, None] ** 2 + columns[None, :] ** 2 > min(height, width) ** 2
    return outside


def constant_outside(images: list[Array]) -> float | None:
    """The value of at least nine tenths of the pixels outside the circle in sampled slices, None if there is
    no such value; NaN is one."""
    outside = [image[outside_circle(image.shape)] for image in images]
    values = np.concatenate(outside).astype(np.float64)
    if not values.size:
        return None
    missing = int(np.count_nonzero(np.isnan(values)))
    if 10 * missing >= 9 * values.size:
        return math.nan
    ordered = np.sort(values)
    middle = float(ordered[values.size // 2])  # a value of nine tenths is the middle one
    equal = int(np.count_nonzero(values == middle))
    return middle if 10 * equal >= 9 * values.size else None
