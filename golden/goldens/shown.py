"""What a golden keeps of one tensor's values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from karat24.golden.explain import real_results
from karat24.golden.goldens.files import values_digest
from karat24.refimpl.graph import QUANTIZED_RANGE, Array, LayerView

HASHING_THREADS = 4
SATURATING = ("int8", "uint8", "int16", "uint16")
CHUNK = 1 << 20
"""Accumulators whose real results are looked at together: few enough to stay in a cache."""


@dataclass(frozen=True)
class Shown:
    """Element type, sizes and SHA-256 of a tensor's values; ``saturated`` and ``ties`` as in
    :class:`~karat24.golden.goldens.manifest.GoldenTensor`, None where they were not counted."""

    dtype: str
    shape: tuple[int, ...]
    sha256: str
    saturated: tuple[int, int] | None = None
    ties: int | None = None


def show(values: Array) -> Shown:
    """Hashes values, and counts nothing."""
    return Shown(str(values.dtype), values.shape, values_digest(values))


def show_counted(values: Array, view: LayerView | None = None, accumulator: Array | None = None) -> Shown:
    """Hashes values and counts those that saturate and, of the first output of layer ``view`` whose
    ``accumulator`` is given, the ties."""
    ties = None if view is None or accumulator is None else count_ties(view, accumulator)
    return replace(show(values), saturated=_saturated(values), ties=ties)


def show_all(arrays: Mapping[int, Array], counted: bool = True) -> dict[int, Shown]:
    """Several arrays, some at a time: hashing lets other threads run."""
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        return dict(zip(arrays, pool.map(show_counted if counted else show, arrays.values()), strict=True))


def _saturated(values: Array) -> tuple[int, int] | None:
    """How many values are the lowest and the highest of their type."""
    if str(values.dtype) not in SATURATING:
        return None
    low, high = QUANTIZED_RANGE[str(values.dtype)]
    return int(np.count_nonzero(values == low)), int(np.count_nonzero(values == high))


def count_ties(view: LayerView, accumulator: Array) -> int | None:
    """How many accumulators have a real result, in float64, exactly between two integers."""
    if view.output().dtype not in SATURATING:
        return None
    found = 0
    for part in _parts(accumulator):
        real = real_results(view, part)
        if real is None:
            return None
        found += int(np.count_nonzero(real - np.floor(real) == 0.5))
    return found


def _parts(accumulator: Array) -> Iterator[Array]:
    """The accumulators cut along the last axis but one, which is never the channels'."""
    if accumulator.ndim < 2:
        yield accumulator
        return
    length = accumulator.shape[-2]
    rows = max(1, CHUNK * length // max(accumulator.size, 1))
    for first in range(0, length, rows):
        yield accumulator[..., first : first + rows, :]
