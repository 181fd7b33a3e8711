"""Slices that need no denoising: a selector looks at a few crops of each, and clean ones cost nothing more.

A slice is judged with its two neighbours, in the networks' own units, ``[y, x, 3]``. The selector runs in
int8 on four crops of 64×64; their scores are added, and a tie counts as clean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from karat24.export.quantize import quantize_learnt
from karat24.refimpl.errors import FeedError
from karat24.refimpl.graph import Array, Graph
from karat24.refimpl.networks import learnt_ranges, slice_selector, trained_weights
from karat24.refimpl.profiles import CANONICAL
from karat24.tomography.restoration import Network, on_oracle

CROP = 64
PLACES = (0.3, 0.7)
"""Centres of the crops, as parts of the height and of the width."""


@dataclass(frozen=True)
class SliceSelector:
    """The quantized selector, ready to run; see :func:`shipped_selector`."""

    network: Network

    def score(self, window: Array) -> float:
        """How much noisier than clean the middle slice of ``[y, x, 3]`` looks; above 0 it needs denoising.

        Raises FeedError for a window of another shape or smaller than a crop.
        """
        if window.ndim != 3 or window.shape[2] != 3 or min(window.shape[:2]) < CROP:
            raise FeedError(
                f"a slice with its two neighbours is [y, x, 3] of at least {CROP}×{CROP}, got {window.shape}"
            )
        scores = np.stack([self.network(crop[None])[0, 0, 0] for crop in crops_of(window)])
        clean, noisy = scores.astype(np.float64).sum(axis=0).tolist()
        return float(noisy - clean)

    def needs_denoising(self, window: Array) -> bool:
        """Whether the middle slice is to be denoised. Raises as :meth:`score` does."""
        return self.score(window) > 0


def crops_of(window: Array) -> list[Array]:
    """Four crops ``[64, 64, channel]`` of ``[y, x, channel]``."""
    starts = [
        [min(max(round(place * length) - CROP // 2, 0), length - CROP) for place in PLACES]
        for length in window.shape[:2]
    ]
    return [window[y : y + CROP, x : x + CROP] for y in starts[0] for x in starts[1]]


def quantized_selector() -> Graph:
    """The shipped selector in int8, in the ranges that lie with its weights: nothing is observed here, so
    that the graph is the same on every machine."""
    weights = trained_weights("slice-selector")
    return quantize_learnt(slice_selector(CROP, CROP, weights), learnt_ranges(weights))


def shipped_selector(profile: str = CANONICAL, threads: int | None = None) -> SliceSelector:
    """The shipped selector on the oracle under a profile."""
    return SliceSelector(on_oracle(quantized_selector(), profile, threads))


def restore_selected(
    window: Array, selector: SliceSelector, restored: Callable[[Array], Array]
) -> tuple[Array, bool]:
    """The middle slice of ``[y, x, 3]``, as ``restored`` gives it or, where it is clean, as it is.

    The second result is whether it was restored. Raises as both do."""
    if selector.needs_denoising(window):
        return restored(window), True
    return window[..., 1].copy(), False
