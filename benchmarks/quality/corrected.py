"""Comparing an image with a truth of which only two references with independent noise exist.

Plain similarity to a noisy reference prefers images with noise of that kind. Of two references ``a`` and
``b`` with independent noise, the covariance is the variance of the truth, and half the mean squared
difference is the variance of the noise. Thus the truth's own moments are known, and an image is compared with
them.

``b`` must be independent of the image; ``a`` may come from the image's own measurement. All images are grey
``[y, x]``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from karat24.refimpl.graph import Array

SIGMA, TRUNCATE = 1.5, 3.5
C1, C2 = 0.01**2, 0.03**2
FINE = 5.0
"""The width in pixels of a Gaussian; fine detail is what it removes."""


@dataclass(frozen=True)
class References:
    """Two references, and the pixels that are compared, bool ``[y, x]``."""

    dependent: Array
    independent: Array
    inside: Array

    def similarity(self, image: Array) -> float:
        """SSIM with the truth's moments in place of a noisy reference's (Wang et al. 2004, equation 13)."""
        first, a, b = (one.astype(np.float64) for one in (image, self.dependent, self.independent))
        mean, mean_a, mean_b = _blur(first), _blur(a), _blur(b)
        shared = _blur(first * b) - mean * mean_b
        own = _blur(first * first) - mean**2
        true = np.maximum(_blur(a * b) - mean_a * mean_b, 0.0)
        above = (2 * mean * mean_b + C1) * (2 * shared + C2)
        below = (mean**2 + mean_b**2 + C1) * (own + true + C2)
        return float((above / below)[self.inside].mean())

    def error(self, image: Array) -> float:
        """Root mean squared error against the truth, grey; 0 where it is too small to be determined."""
        noise = 0.5 * float(((self.dependent - self.independent)[self.inside] ** 2).mean())
        total = float(((image - self.independent)[self.inside] ** 2).mean())
        return max(total - noise, 0.0) ** 0.5

    def detail_kept(self, image: Array) -> float:
        """The share of the truth's fine detail that the image has: 1 for all of it, whatever the image's
        noise."""
        fine, a, b = (_fine(one)[self.inside] for one in (image, self.dependent, self.independent))
        return float((fine * b).mean() / (a * b).mean())


def _blur(values: Array) -> Array:
    result: Array = gaussian_filter(values, SIGMA, truncate=TRUNCATE)
    return result


def _fine(image: Array) -> Array:
    values = image.astype(np.float64)
    detail: Array = values - gaussian_filter(values, FINE)
    return detail
