"""Scans with structure of known contrast, and without it, for tests of what a restoration lost."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np

from karat24.refimpl.graph import Array
from karat24.tomography.imaging.detector import Beam
from karat24.tomography.imaging.field import scans
from karat24.tomography.imaging.field.scans import Conditions, simulate_field
from karat24.tomography.imaging.fields import Field, level_set
from karat24.tomography.imaging.projector import project

SPAN = 0.8
"""Grey between the 1st and the 99th percentile of a scan."""


@dataclass(frozen=True)
class Scene:
    """``window`` ``[y, x, 3]`` and its ``clean`` middle slice, grey."""

    window: Array
    clean: Array


@functools.lru_cache(maxsize=64)
def scene(kind: str, seed: int, views: int, dose: float, size: int = 256) -> Scene:
    """One simulated window of a plain scan; ``dose`` 0 is free of noise."""
    beam = Beam(dose=1.0, blur=0.5, ring=1e-3, read_noise=1.0)
    conditions = Conditions(views=views, dose=dose, beam=beam)
    with patch.object(scans, "project", _projected):
        scan = simulate_field(kind, size, seed, split="test", conditions=conditions)
    return Scene(scan.noisy[0], scan.clean[0])


_PROJECTIONS: dict[tuple[bytes, bytes, int], Array] = {}


def _projected(density: Array, degrees: Array, bins: int) -> Array:
    """Projections of the last planes: another dose of the same sample has the same ones."""
    key = density.tobytes(), degrees.tobytes(), bins
    if key not in _PROJECTIONS:
        while len(_PROJECTIONS) >= 6:
            del _PROJECTIONS[next(iter(_PROJECTIONS))]
        _PROJECTIONS[key] = project(density, degrees, bins)
    return _PROJECTIONS[key]


def aggregate(size: int, seed: int, contrast: float, grain: float = 20.0) -> Array:
    """Patches about ``grain`` pixels apart, brighter than between them by ``contrast`` of the span: grey."""
    field = Field(np.random.default_rng(seed), size, period=grain, spread=0.3)
    patches: Array = np.float32(contrast * SPAN) * level_set(field.at(0.0), 0.3)
    return patches


def planted(scene: Scene, seed: int, contrast: float) -> Scene:
    """The scan as it would be with aggregate in all three slices, and the clean slice still without it: what
    a restoration that wipes it out would give."""
    added = aggregate(len(scene.clean), seed, contrast)
    return Scene(scene.window + added[..., np.newaxis], scene.clean)
