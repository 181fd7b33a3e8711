"""How noisy a volume is, measured where it is quietest: in slices, and in how neighbouring slices differ.

The first measure is right where something is flat, and takes texture that is everywhere for noise unless it
is coarse, as texture mostly is; the second is right where neighbours' noise is independent, and too low where
it is not. The larger of the two counts, so that a volume passes for clean only when both say so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from karat24.refimpl.graph import Array
from karat24.tomography.honesty.bands import FRACTION, energy, fixed_point, local_energy, split
from karat24.tomography.honesty.views import count_views

TILE = 17
QUIET = 0.1
"""Share of the tiles that is looked at."""
QUIET_BIAS = 1.25
"""The quietest tenth of tiles of this size of even noise has this much less energy than all."""
COARSE_SHARE = 0.5
"""Structure has at least twice as much energy in band 2 as in band 0; noise has less than a fifth."""

CLEAN, NOISY = 0.003, 0.006
"""Grey: a deviation up to the first passes for none, one from the second on is noise. Simulated volumes
without noise measured up to 0.0022, the least noisy of the test set 0.0064."""


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
    deviations = [max(quiet_deviation(window[..., 1]), _between(window)) for window in windows]
    views = [count_views(window[..., 1]) or 0 for window in windows]
    # Rounded, since sums of floating point depend on the version of NumPy in their last bits.
    return NoiseModel(int(np.median(views)), round(float(np.median(deviations)), 4))


def quiet_deviation(image: Array) -> float:
    """Deviation of noise in the finest band of an image ``[y, x]``, in its quietest tenth.

    Tiles of one value, such as lie outside a circle, are no measurement.
    """
    bands, _ = split(fixed_point(image))
    half = TILE // 2
    fine, coarse = (local_energy(bands[n], TILE)[half::half, half::half].ravel() for n in (0, 2))
    measured = fine > (1.0 / FRACTION) ** 2
    fine, coarse = fine[measured], coarse[measured]
    if not fine.size:
        return 0.0
    quietest = np.argsort(fine, kind="stable")[: max(4, int(QUIET * fine.size))]
    left = float(fine[quietest].mean()) - COARSE_SHARE * float(coarse[quietest].mean())
    return math.sqrt(max(left, 0.0) * QUIET_BIAS)


def _between(window: Array) -> float:
    """The same of the middle slice against its neighbours' mean, whose noise is half of one slice's."""
    difference = 0.5 * (window[..., 0] + window[..., 2]) - window[..., 1]
    return quiet_deviation(difference) / math.sqrt(1.5)


def spectrum(image: Array) -> list[float]:
    """Energy of each band of a grey image ``[y, x]``, grey²."""
    return [energy(band) for band in split(fixed_point(image))[0]]
