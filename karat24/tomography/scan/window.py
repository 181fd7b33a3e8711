"""What a network sees of a volume: a slice and its two neighbours, in grey."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from karat24.refimpl.graph import Array
from karat24.tomography.scan.greyscale import Greyscale
from karat24.tomography.scan.masks import Mask
from karat24.tomography.scan.sampling import require_finite
from karat24.tomography.scan.volumes import Volume


@dataclass(frozen=True)
class Window:
    """``grey`` is float32 ``[y, x, 3]``; ``measured`` and ``masked`` ``[y, x]`` are of the middle slice."""

    grey: Array
    measured: Array
    masked: Array


def window_of(volume: Volume, index: int, scale: Greyscale, mask: Mask | None) -> Window:
    """Slice ``index`` with its neighbours; at the ends it is its own neighbour.

    Raises FeedError for a slice that cannot be read, or holds NaN outside the mask.
    """
    about = volume.about
    grey = np.empty((*about.shape[1:], 3), np.float32)
    for place in (0, 2, 1):  # the middle one last: its values and mask are kept
        neighbour = min(max(index + place - 1, 0), about.shape[0] - 1)
        measured = volume.read(neighbour)
        masked = np.zeros(measured.shape, bool) if mask is None else mask.of(measured)
        require_finite(measured, masked, about.names[neighbour])
        grey[..., place] = scale.grey(np.where(masked, scale.fill, measured.astype(np.float64)))
    return Window(grey, measured, masked)
