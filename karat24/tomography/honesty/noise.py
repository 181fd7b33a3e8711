"""How noisy a volume is, measured by how neighbouring slices differ, where they differ least.

The mean of two neighbours less the slice between them is noise, and what the sample changes by: the latter is
nothing in the quietest places, and coarser than noise elsewhere. Where neighbours' noise is correlated the
measure is too low, by ``sqrt(1 - correlation)``; where slices are equal it tells nothing, and the slice's own
finest detail counts, which is never less than its noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from karat24.refimpl.graph import Array
from karat24.tomography.honesty.bands import FRACTION, fixed_point, local_energy, split
from karat24.tomography.honesty.views import count_views

TILE = 9
QUIET = 0.05
"""Share of the tiles that is looked at."""
QUIET_BIAS = 1.25
"""The quietest tiles of even noise have about this much less energy than all."""
COARSE_SHARE = 1.0
"""Structure has at least as much energy in band 2 as in band 0; noise has less than a fifth."""
MEDIAN = 0.6745
"""Median magnitude of a normal distribution, in deviations."""

CLEAN, NOISY = 0.003, 0.0045
"""Grey: a deviation up to the first passes for none, one from the second on is noise. Simulated volumes
without noise measure up to 0.0011 at 384 pixels, the least noisy of the test set of many views 0.0047."""


@dataclass(frozen=True)
class NoiseModel:
    """What is known of a volume's noise.

    ``views`` is the number of views, 0 where no spokes show. ``deviation`` is that of the noise in the finest
    band where it is least, grey.
    """

    views: int
    deviation: float

    @property
    def cleanness(self) -> float:
        """1 for a volume without noise, 0 for a noisy one or one of few views, in 64ths."""
        if self.views:
            return 0.0
        share = (NOISY - self.deviation) / (NOISY - CLEAN)
        return min(max(round(64 * share), 0), 64) / 64


def measure_noise(windows: Sequence[Array]) -> NoiseModel:
    """From some slices with their neighbours, grey ``[y, x, 3]`` each: medians over them."""
    deviations = [noise_deviation(window) for window in windows]
    views = [count_views(window[..., 1]) or 0 for window in windows]
    # Rounded, since sums of floating point depend on the version of NumPy in their last bits.
    return NoiseModel(int(np.median(views)), round(float(np.median(deviations)), 4))


def noise_deviation(window: Array) -> float:
    """Deviation of the noise of the middle slice in the finest band, where it is least, grey.

    Places of one value, such as those outside a circle, are not measurements.
    """
    between = fixed_point(0.5 * (window[..., 0] + window[..., 2]) - window[..., 1])
    if not between.any():
        finest = np.abs(split(fixed_point(window[..., 1]))[0][0])
        return float(np.median(finest[finest > 1])) / FRACTION / MEDIAN if (finest > 1).any() else 0.0
    bands = split(between)[0]
    half = TILE // 2
    fine, coarse = (local_energy(bands[n], TILE)[half::half, half::half].ravel() for n in (0, 2))
    measured = fine > (1.0 / FRACTION) ** 2
    fine, coarse = fine[measured], coarse[measured]
    if not fine.size:
        return 0.0
    quietest = np.argsort(fine, kind="stable")[: max(4, int(QUIET * fine.size))]
    left = float(fine[quietest].mean()) - COARSE_SHARE * float(coarse[quietest].mean())
    # The mean of two slices less a third has 1.5 times the noise of one.
    return math.sqrt(max(left, 0.0) * QUIET_BIAS / 1.5)
