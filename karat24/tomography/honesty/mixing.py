"""What a network took away, given back where it was no noise. The network's own bits stay as they are.

    result = restored + cleanness · residual + (1 - cleanness) · (1 - strength) · structured part

A volume without noise passes through: ``cleanness`` is a number of the whole volume
(:class:`karat24.tomography.honesty.noise.NoiseModel`), 0 for a noisy one. The structured part is found band
by band, where no streaks mislead, with the gain of Wiener's filter around each pixel: what its energy exceeds
that of noise by, over its energy. Energies are sums of integers; everything else is an addition, a
multiplication or a division of float64, one by one, so IEEE 754 fixes the bits on every processor.
"""

from __future__ import annotations

import numpy as np

from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Array
from karat24.tomography.honesty.bands import BANDS, FRACTION, energy, fixed_point, local_energy, split
from karat24.tomography.honesty.noise import NoiseModel
from karat24.tomography.honesty.residual import COARSE, expected_energies, is_resolved
from karat24.tomography.honesty.views import resolved_below

REACH = (9, 13, 17, 25, 33, 49)
"""Side of the square around a pixel over which each band's energy is taken."""
CAUTION = 1.5
"""Times the expected energy that passes for noise."""


def mix(window: Array, restored: Array, noise: NoiseModel, strength: float = 1.0) -> Array:
    """The slice ``[y, x]`` that is kept, float32 grey, of ``window`` ``[y, x, 3]`` and ``restored``.

    ``strength`` 1 leaves the network's result as it is where there is noise; 0 gives back all that looks like
    structure. Raises UsageError for a strength outside 0 … 1.
    """
    check_strength(strength)
    cleanness = noise.cleanness
    if cleanness == 0.0 and strength == 1.0:
        return restored
    removed = fixed_point(window[..., 1]) - fixed_point(restored)
    back = cleanness * removed.astype(np.float64)
    if strength < 1.0 and cleanness < 1.0:
        back += (1.0 - cleanness) * (1.0 - strength) * _structured(window, removed, noise.views)
    result: Array = (restored.astype(np.float64) + back / FRACTION).astype(np.float32)
    return result


def check_strength(strength: float) -> None:
    """Raises UsageError for a strength outside 0 … 1."""
    if not 0.0 <= strength <= 1.0:
        raise UsageError(f"a strength of {strength}: give 0 (all structure is given back) to 1 (none)")


def _structured(window: Array, removed: Array, views: int) -> Array:
    """The part of the residual, int32 steps ``[y, x]``, that is not noise: float64 steps."""
    parts, rest = split(removed)
    between = fixed_point(0.5 * (window[..., 0] + window[..., 2])) - fixed_point(window[..., 1])
    expected = expected_energies(
        [energy(band) for band in parts], [energy(band) for band in split(between)[0]]
    )
    free = resolved_below(views or None, min(removed.shape))
    total = np.zeros(removed.shape)
    gain = np.zeros(removed.shape)
    for band in range(COARSE, BANDS):
        if is_resolved(band, free, views):
            around = local_energy(parts[band], REACH[band])
            gain = np.maximum(1.0 - CAUTION * expected[band] / np.maximum(around, 1e-18), 0.0)
            total += gain * parts[band]
    total += gain * rest
    return total
