"""The families of samples, as one table. A family builds the same 3-D sample at several heights.

All lengths are in pixels and densities relative (about 1 for solid matter); every random draw comes from the
generator a family is given, and none depends on the heights, so more slices never change the sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from karat24.refimpl.graph import Array
from karat24.tomography.imaging.families.bone import build_bone
from karat24.tomography.imaging.families.fibres import build_fibres
from karat24.tomography.imaging.families.foam import build_foam
from karat24.tomography.imaging.families.grains import build_grains
from karat24.tomography.imaging.families.mixture import build_mixture
from karat24.tomography.imaging.families.rock import build_rock
from karat24.tomography.imaging.families.spheres import build_spheres
from karat24.tomography.imaging.sample_slice import SampleSlice

Build: TypeAlias = Callable[[np.random.Generator, int, Array], list[SampleSlice]]
"""``(rng, image size, heights) -> one SampleSlice per height``."""


@dataclass(frozen=True)
class Family:
    """``code`` enters the seed and must never be reused; a held-out family is refused for training."""

    code: int
    build: Build
    held_out: bool = False


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "spheres": Family(1, build_spheres),
        "foam": Family(2, build_foam),
        "rock": Family(3, build_rock),
        "grains": Family(4, build_grains),
        "fibres": Family(5, build_fibres),
        "mixture": Family(6, build_mixture),
        "bone": Family(7, build_bone, held_out=True),
    }
)
"""Every family of samples by name."""

TRAINING_FAMILIES: tuple[str, ...] = tuple(name for name, family in FAMILIES.items() if not family.held_out)
"""The families a network may be trained on."""
