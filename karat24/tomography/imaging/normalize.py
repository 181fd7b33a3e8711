"""Grey values: the one scale on which networks see reconstructions.

A reconstruction is in 1/pixel and its range depends on sample, energy and noise. Grey values are::

    grey = 0.1 + 0.8 · (value - low) / (high - low)

with ``low`` and ``high`` the 1st and 99th percentile of the *noisy* image (all a user has), so 0 is black and
1 white in an 8-bit picture, one 8-bit step is 1/255, and up to a few thousandths of the pixels lie beyond.
Percentiles, not extremes: a ring, a dead pixel's streak or one metal grain moves them by next to nothing,
while it would rescale the whole image through its maximum. A clean image is scaled by its noisy partner's
numbers, so a network need not change the scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from karat24.refimpl.errors import FeedError
from karat24.refimpl.graph import Array

LOW_PERCENTILE: Final = 1.0
HIGH_PERCENTILE: Final = 99.0
LOW_GREY: Final = 0.1
HIGH_GREY: Final = 0.9


@dataclass(frozen=True)
class Normalization:
    """``grey = offset + gain · value``; ``gain`` is in grey per unit of the image (pixels, if in 1/pixel)."""

    gain: float
    offset: float

    @staticmethod
    def of(noisy: Array) -> Normalization:
        """From the noisy image or stack of one sample, any shape.

        Raises :class:`FeedError` for NaN or infinity, and for an image without contrast.
        """
        if noisy.size == 0 or not np.isfinite(noisy).all():
            bad = int(noisy.size - np.count_nonzero(np.isfinite(noisy)))
            raise FeedError(
                f"image of shape {noisy.shape} has {bad} pixels that are NaN or infinite; replace them"
            )
        low, high = (float(v) for v in np.percentile(noisy, [LOW_PERCENTILE, HIGH_PERCENTILE]))
        if not high > low:
            raise FeedError(
                f"image of shape {noisy.shape} is flat: its 1st and 99th percentile are both {low:g}"
            )
        gain = (HIGH_GREY - LOW_GREY) / (high - low)
        return Normalization(gain, LOW_GREY - gain * low)

    def grey(self, values: Array) -> Array:
        """Values of the image's unit → grey, float32, not clipped."""
        result: Array = (self.gain * values.astype(np.float64) + self.offset).astype(np.float32)
        return result

    def value(self, grey: Array) -> Array:
        """Grey → the image's unit, float32: the inverse of :meth:`grey`."""
        result: Array = ((grey.astype(np.float64) - self.offset) / self.gain).astype(np.float32)
        return result

    def then(self, gain: float, offset: float) -> Normalization:
        """Follow by another linear change of grey values."""
        return Normalization(gain * self.gain, gain * self.offset + offset)


def to_bytes(grey: Array) -> Array:
    """Grey → uint8, 255 per unit, rounded to nearest and clipped to 0 … 255."""
    return np.clip(np.rint(grey * 255.0), 0.0, 255.0).astype(np.uint8)


def from_bytes(pixels: Array) -> Array:
    """uint8 → grey, float32."""
    return pixels.astype(np.float32) / np.float32(255.0)
