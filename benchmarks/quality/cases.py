"""The test set: simulated slices that no network was trained on, made once and kept."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Array
from karat24.tomography import imaging
from karat24.tomography.imaging.families import FAMILIES, TRAINING_FAMILIES
from karat24.tomography.imaging.simulate import simulate_slices

HELD_OUT = tuple(name for name, family in FAMILIES.items() if family.held_out)
SHARE_HELD_OUT = 2 / 11
"""The share of held-out families in all slices: 12 of 66."""


@dataclass(frozen=True)
class Case:
    """One slice of the test set: ``number`` counts within its family and is the sample's seed."""

    family: str
    number: int
    size: int

    @property
    def name(self) -> str:
        """The slice's name, unique within a test set."""
        return f"{self.family}-{self.number:03}"


@dataclass(frozen=True)
class Slice:
    """Grey, float32: ``noisy`` ``[y, x, 3]`` with its neighbours, and ``clean`` ``[y, x]``."""

    noisy: Array
    clean: Array


def choose_cases(count: int, size: int) -> list[Case]:
    """``count`` slices: the training families in turn, then the held-out families with a larger share.

    Raises UsageError for fewer than two slices, or a size that is not a multiple of 64.
    """
    if count < 2:
        raise UsageError(f"{count} slices asked for; give at least 2, one of them of a held-out family")
    if size < 64 or size % 64:
        raise UsageError(f"size is {size}; give a multiple of 64")
    held_out = max(1, round(count * SHARE_HELD_OUT))
    families = [TRAINING_FAMILIES[n % len(TRAINING_FAMILIES)] for n in range(count - held_out)]
    families += [HELD_OUT[n % len(HELD_OUT)] for n in range(held_out)]
    return [Case(family, families[:n].count(family), size) for n, family in enumerate(families)]


def load_slice(case: Case, folder: Path) -> Slice:
    """The slice from ``folder``; a missing one is first simulated and stored there.

    The folder of the slices is named after the simulator's source, so that a changed simulator makes new
    ones.
    """
    path = folder / f"slices-{simulator_digest()[:12]}" / f"{case.name}-{case.size}.npz"
    if not path.is_file():
        scan = simulate_slices(case.family, case.size, case.number, split="test")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial.npz")
        np.savez(partial, noisy=scan.noisy[0], clean=scan.clean[0])
        partial.replace(path)
    with np.load(path) as stored:
        return Slice(stored["noisy"], stored["clean"])


def simulator_digest() -> str:
    """SHA-256 of the simulator's source."""
    return source_digest(Path(imaging.__file__).parent)


def source_digest(*places: Path) -> str:
    """SHA-256 over Python files, and over those in folders."""
    digest = hashlib.sha256()
    for place in places:
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
