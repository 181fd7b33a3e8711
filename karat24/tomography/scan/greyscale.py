"""The one scale on which a network sees a whole volume, chosen from a sample, undone behind the network.

As in ``karat24.tomography.imaging.normalize``, 0.1 and 0.9 stand for the 1st and the 99th percentile. Two
things differ, since a volume is not one clean image:

* Percentiles are order statistics of the sample, without interpolation, and grey values come from additions
  and multiplications of float64 one by one. IEEE 754 fixes the result of each, so the bits depend neither on
  the processor nor on the version of NumPy, whose sums and percentiles have changed their order of rounding.
* Hot pixels and a metal grain reach into the percentiles where they are 1 % of the pixels. They are left out:
  values farther from the middle 80 % than three times its width, as long as they are few.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from karat24.refimpl.errors import FeedError
from karat24.refimpl.graph import Array

LOW_GREY, GREY_SPAN = 0.1, 0.8
FENCE = 3.0
"""How far outliers lie from the middle 80 %, in widths of these."""
MOST_OUTLIERS = 0.05
"""A larger share of the sample than this is not an outlier but a part of what was scanned."""

CLIPPED_ABOVE, CLIPPED_BELOW = 1.03, -0.03
"""Grey values that the shipped networks can tell from what lies beyond."""
MUCH_CLIPPED = 0.005
FAR_APART = 4.0
SMALL_SAMPLE = 0.02


@dataclass(frozen=True)
class Greyscale:
    """``grey = 0.1 + (value - low) · 0.8 / (high - low)``, with ``low`` and ``high`` in the volume's unit.

    ``fill`` is the value that the network sees in place of masked pixels.
    """

    low: float
    high: float
    fill: float

    def grey(self, values: Array) -> Array:
        """Values of the volume's unit → grey, float32, not clipped."""
        factor = GREY_SPAN / (self.high - self.low)
        result: Array = ((values.astype(np.float64) - self.low) * factor + LOW_GREY).astype(np.float32)
        return result

    def value(self, grey: Array) -> Array:
        """Grey → the volume's unit, float64: the inverse of :meth:`grey`."""
        factor = (self.high - self.low) / GREY_SPAN
        result: Array = (grey.astype(np.float64) - LOW_GREY) * factor + self.low
        return result

    @property
    def black_and_white(self) -> tuple[float, float]:
        """The values of grey 0 and grey 1."""
        step = (self.high - self.low) / GREY_SPAN
        return self.low - LOW_GREY * step, self.low + (1 - LOW_GREY) * step


@dataclass(frozen=True)
class Chosen:
    """A scale, and the lines that say what the user should know before it is used."""

    scale: Greyscale
    warnings: tuple[str, ...]


def choose(ordered: Array, given: tuple[float, float] | None = None) -> Chosen:
    """The scale for a volume of which ``ordered`` is a sample: float64 ``[n]``, ascending, finite, unmasked.

    ``given`` are the values that become 0.1 and 0.9, from the user. Raises FeedError for a sample of one
    value.
    """
    if not ordered.size or ordered[0] == ordered[-1]:
        value = f"every pixel of the sample is {ordered[0]:g}" if ordered.size else "the sample is empty"
        raise FeedError(f"{value}: there is nothing to restore; name the array or --mask that is meant")
    fill = _at(ordered, 500)
    if given is not None:
        scale = _usable(Greyscale(*given, fill))
        return Chosen(scale, tuple(_warnings(ordered, scale)))
    background, rest = _without_constant(ordered)
    inside = _inside_fences(rest)
    low, high = _at(inside, 10), _at(inside, 990)
    if background is not None:
        low, high = min(low, background), max(high, background)
    if not high > low:
        low, high = float(ordered[0]), float(ordered[-1])
    scale = _usable(Greyscale(low, high, fill))
    warnings = []
    if (left := rest.size - inside.size) > 0:
        warnings.append(
            f"{100 * left / ordered.size:.2g} % of the sampled pixels lie far from all others and are taken "
            "for hot pixels or metal: they will be clipped. If they are what you look for, give --range LOW "
            "HIGH"
        )
    return Chosen(scale, (*warnings, *_warnings(ordered, scale)))


def _usable(scale: Greyscale) -> Greyscale:
    """The scale, once float64 holds its factors. Raises FeedError."""
    span = scale.high - scale.low
    with np.errstate(over="ignore"):
        factors = np.float64(GREY_SPAN) / span, *scale.black_and_white
    if not np.isfinite(factors).all():
        raise FeedError(
            f"values from {scale.low:.6g} to {scale.high:.6g} cannot be scaled in float64; write the volume "
            "in another unit"
        )
    return scale


def _at(ordered: Array, permille: int) -> float:
    """The order statistic at a rank given in thousandths."""
    return float(ordered[(ordered.size - 1) * permille // 1000])


def _without_constant(ordered: Array) -> tuple[float | None, Array]:
    """A value of at least 80 % of the sample, and the others; None and all of them if there is none such."""
    middle = _at(ordered, 500)
    if _at(ordered, 100) != _at(ordered, 900):
        return None, ordered
    return middle, ordered[ordered != middle]


def _inside_fences(ordered: Array) -> Array:
    """The sample without outliers; all of it where these are too many to be outliers."""
    least, most = _at(ordered, 100), _at(ordered, 900)
    reach = FENCE * (most - least)
    first = int(np.searchsorted(ordered, least - reach, "left"))
    stop = int(np.searchsorted(ordered, most + reach, "right"))
    if ordered.size - (stop - first) > MOST_OUTLIERS * ordered.size:
        return ordered
    return ordered[first:stop]


def _warnings(ordered: Array, scale: Greyscale) -> list[str]:
    found = []
    grey = scale.grey(ordered)
    clipped = int(np.count_nonzero((grey < CLIPPED_BELOW) | (grey > CLIPPED_ABOVE)))
    if clipped > MUCH_CLIPPED * ordered.size:
        found.append(
            f"{100 * clipped / ordered.size:.2g} % of the sampled pixels lie beyond the range "
            f"{scale.low:.6g} to {scale.high:.6g} and will be clipped; --range LOW HIGH sets another one"
        )
    wide = _at(ordered, 999) - _at(ordered, 1)
    span = scale.high - scale.low
    if wide > FAR_APART * span or span > FAR_APART * wide:
        found.append(
            f"the range {scale.low:.6g} to {scale.high:.6g} is far from that of nearly all pixels, "
            f"{_at(ordered, 1):.6g} to {_at(ordered, 999):.6g}; look at --preview before you trust it"
        )
    half = (scale.low + scale.high) / 2
    above = int(np.count_nonzero(ordered > half))
    if min(above, ordered.size - above) < SMALL_SAMPLE * ordered.size:
        found.append(
            f"only {100 * min(above, ordered.size - above) / ordered.size:.2g} % of the sampled pixels lie "
            "on one side of the middle of the range: the object fills little of the view; look at "
            "--preview, and give --range LOW HIGH if it looks flat"
        )
    return found
