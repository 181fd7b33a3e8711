"""Classical denoisers, each tuned for every slice with the clean image.

They are non-local means and total variation of scikit-image. For each slice, the strength and the weight of
the neighbouring slices (networks see them, too) are those with the highest structural similarity to the
*clean* image on the central 256×256 pixels; they are then applied to the whole slice. A user cannot do that:
the result is an upper bound for these methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from types import MappingProxyType

import numpy as np
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

from benchmarks.quality.cases import Slice
from benchmarks.quality.metrics import ssim
from karat24.refimpl.graph import Array

CROP = 256
NEIGHBOURS = (0.0, 0.25, 1 / 3)
"""Weight of each of the two neighbouring slices."""

Denoise = Callable[[Array, float], Array]


def noise(image: Array) -> float:
    """Standard deviation of white noise in a slice ``[y, x]``: median magnitude of its diagonal Haar detail
    over 0.6745 (Donoho and Johnstone, 1994)."""
    height, width = (side // 2 * 2 for side in image.shape)
    even = image[:height, :width]
    detail = (even[::2, ::2] - even[::2, 1::2] - even[1::2, ::2] + even[1::2, 1::2]) / 2
    return float(np.median(np.abs(detail)) / 0.6745)


def non_local_means(image: Array, strength: float) -> Array:
    """``strength`` is the cut-off distance in estimated noise deviations."""
    level = max(noise(image), 1e-4)
    denoised: Array = denoise_nl_means(
        image, patch_size=5, patch_distance=6, h=strength * level, sigma=level, fast_mode=True
    )
    return denoised


def total_variation(image: Array, strength: float) -> Array:
    """``strength`` is the weight of the total variation."""
    denoised: Array = denoise_tv_chambolle(image, weight=strength)
    return denoised


PEERS: Mapping[str, tuple[Denoise, tuple[float, ...]]] = MappingProxyType(
    {
        "nlm": (non_local_means, (0.4, 0.6, 0.9, 1.3, 2.0, 3.0, 5.0, 8.0)),
        "tv": (total_variation, (0.03, 0.05, 0.08, 0.13, 0.2, 0.3, 0.45, 0.7, 1.0, 1.5)),
    }
)
"""Name to the method and the strengths that are tried."""


def restore_by(peer: str, given: Slice) -> tuple[Array, dict[str, float]]:
    """The slice restored by a peer, ``[y, x]``, and the parameters that were best for it."""
    denoise, strengths = PEERS[peer]
    middle = tuple(slice((side - CROP) // 2, (side + CROP) // 2) if side > CROP else slice(None)
                   for side in given.clean.shape)  # fmt: skip
    clean = given.clean[middle]

    def similarity(choice: tuple[float, float]) -> float:
        neighbours, strength = choice
        return ssim(clean, denoise(averaged(given.noisy[middle], neighbours), strength))

    neighbours, strength = max(product(NEIGHBOURS, strengths), key=similarity)
    image = denoise(averaged(given.noisy, neighbours), strength).astype(np.float32)
    return image, {"neighbours": round(neighbours, 3), "strength": strength}


def averaged(noisy: Array, neighbours: float) -> Array:
    """The middle slice of three, ``[y, x, 3]``, averaged with ``neighbours`` times each of the others."""
    weights = np.array([neighbours, 1 - 2 * neighbours, neighbours], np.float32)
    mixed: Array = noisy @ weights
    return mixed
