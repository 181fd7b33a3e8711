"""What a float32 result may be: an interval per value, and how much of it a runtime used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from karat24.refimpl.errors import CannotCompare
from karat24.refimpl.graph import Array

UNIT = 2.0**-24
"""Unit roundoff of float32: half the distance from 1 to the next larger value."""

UNIT64 = 2.0**-53
"""Unit roundoff of float64, in which centres are computed."""

TINY = 2.0**-126
"""The smallest normal float32. Below it a runtime may keep subnormals or flush them to 0."""

LARGEST = float(np.finfo(np.float32).max)


def gamma(count: int, unit: float = UNIT) -> float:
    """``count * unit / (1 - count * unit)``: what ``count`` roundings in a row change, relative to the value.

    Source: Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, lemma 3.1.
    Raises CannotCompare where the roundings are too many to bound.
    """
    if count * unit >= 0.5:
        raise CannotCompare(f"{count} roundings in a row are too many to bound")
    return count * unit / (1 - count * unit)


@dataclass(frozen=True)
class Use:
    """How a runtime's values lie in their intervals.

    ``outside`` counts the values that do not. ``largest`` is the largest distance from an interval's middle
    as a part of half its width: at most 1 inside. ``median_width`` is the median width of the intervals,
    for float32 in units in the last place of the middle, for integers in steps.
    """

    elements: int
    outside: int
    largest: float
    median_width: float
    unit: Literal["units in the last place", "steps"]

    def merged(self, other: Use) -> Use:
        """Both together: counts add, the largest counts, and the wider of the two medians."""
        return Use(
            self.elements + other.elements,
            self.outside + other.outside,
            max(self.largest, other.largest),
            max(self.median_width, other.median_width),
            self.unit,
        )

    def __str__(self) -> str:
        return (
            f"{self.elements - self.outside} of {self.elements} values lie in the intervals that any order "
            f"of float32 operations can give; median width {self.median_width:.4g} {self.unit}, the farthest "
            f"value {self.largest:.3g} of the way from the middle to an end"
        )


@dataclass(frozen=True, eq=False)
class Interval:
    """``low <= value <= high`` for each element of one tensor; both ends are possible values of its type."""

    low: Array
    high: Array

    @classmethod
    def around(cls, centre: Array, radius: Array) -> Interval:
        """The float32 values no further than ``radius`` from ``centre``; both are float64.

        Raises CannotCompare where an end is not a finite float32: the result may then be anything.
        """
        centre, radius = np.asarray(centre, np.float64), np.asarray(radius, np.float64)
        low, high = centre - radius, centre + radius
        if not bool(np.all((low >= -LARGEST) & (high <= LARGEST))):
            raise CannotCompare("values are so large, or so far from numbers, that float32 may overflow")
        below, above = low.astype(np.float32), high.astype(np.float32)
        up, down = np.float32(np.inf), np.float32(-np.inf)
        below = np.where(below < low, np.nextafter(below, up), below)
        above = np.where(above > high, np.nextafter(above, down), above)
        return cls(below.astype(np.float32), above.astype(np.float32))

    @classmethod
    def exactly(cls, values: Array) -> Interval:
        """The intervals of known values: both ends are equal."""
        return cls(values, values)

    @property
    def is_exact(self) -> bool:
        """True when every interval holds one value."""
        return self.low is self.high or bool(np.array_equal(self.low, self.high))

    def nearest(self, found: Array) -> Array:
        """``found`` where it is allowed, else the nearest allowed value."""
        inside = (self.low <= found) & (found <= self.high)
        return np.where(inside, found, np.where(found > self.high, self.high, self.low))

    def reshaped(self, shape: tuple[int, ...]) -> Interval:
        """The same values in another shape."""
        return Interval(self.low.reshape(shape), self.high.reshape(shape))

    def use(self, found: Array) -> Use:
        """How ``found`` lies in it. Raises CannotCompare for another shape or element type."""
        if found.shape != self.low.shape or found.dtype != self.low.dtype:
            raise CannotCompare(
                f"expected {self.low.dtype} {self.low.shape}, found {found.dtype} {found.shape}"
            )
        unit: Literal["units in the last place", "steps"] = (
            "units in the last place" if found.dtype.kind == "f" else "steps"
        )
        if not found.size:
            return Use(0, 0, 0.0, 0.0, unit)
        low, high = self.low.astype(np.float64), self.high.astype(np.float64)
        values = found.astype(np.float64)
        inside = (low <= values) & (values <= high)  # false for what is not a number
        middle, half = (low + high) / 2, (high - low) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            part = np.where(half > 0, np.abs(values - middle) / half, np.where(inside, 0.0, np.inf))
        step = np.spacing(np.abs(middle).astype(np.float32)) if found.dtype.kind == "f" else 1.0
        return Use(
            elements=found.size,
            outside=int(found.size - np.count_nonzero(inside)),
            largest=float(np.where(np.isnan(part), np.inf, part).max()),
            median_width=float(np.median((high - low) / step)),
            unit=unit,
        )


@dataclass(frozen=True, eq=False)
class Either(Interval):
    """What one of several kernels gives: a whole tensor lies in one of ``forms``.

    ``low`` and ``high`` are around all of them.
    """

    forms: tuple[Interval, ...] = ()

    @classmethod
    def of(cls, *forms: Interval) -> Either:
        """Of one or more intervals of one tensor."""
        low = np.minimum.reduce([form.low for form in forms])
        return cls(low, np.maximum.reduce([form.high for form in forms]), forms)

    def nearest(self, found: Array) -> Array:
        """``found`` where the form that fits it best allows it, else that form's nearest value."""
        return self._fitting(found).nearest(found)

    def reshaped(self, shape: tuple[int, ...]) -> Interval:
        """The same values in another shape."""
        return Either.of(*(form.reshaped(shape) for form in self.forms))

    def use(self, found: Array) -> Use:
        """How ``found`` lies in the form that fits it best. Raises CannotCompare as each of them."""
        return self._fitting(found).use(found)

    def _fitting(self, found: Array) -> Interval:
        def unfitness(form: Interval) -> tuple[int, float]:
            use = form.use(found)
            return use.outside, use.median_width

        return min(self.forms, key=unfitness)
