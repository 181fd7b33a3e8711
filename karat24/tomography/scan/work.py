"""The unit of work: one slice, from the volume to its record."""

from __future__ import annotations

import math
import socket
import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from karat24.refimpl.errors import CannotCompare
from karat24.refimpl.graph import Array
from karat24.tomography.honesty.mixing import mix
from karat24.tomography.honesty.residual import Residual, judge_residual
from karat24.tomography.scan.files import digest, write_whole
from karat24.tomography.scan.greyscale import CLIPPED_ABOVE, CLIPPED_BELOW
from karat24.tomography.scan.manifest import Manifest
from karat24.tomography.scan.outputs import SliceStore
from karat24.tomography.scan.recipe import digest_of, recipe_for
from karat24.tomography.scan.records import Record
from karat24.tomography.scan.restorer import MakeNetwork, Restorer, network_maker
from karat24.tomography.scan.sampling import is_constant
from karat24.tomography.scan.volumes import Volume, open_volume
from karat24.tomography.scan.window import Window, window_of
from karat24.tomography.selection import SliceSelector, quantized_selector

FIXED_POINT = 1 << 16
"""Differences of grey values are summed in integers of this fraction: exact in every order."""
LARGEST_GREY = 8.0


@dataclass(frozen=True)
class RestoredSlice:
    """``stored`` is what the output holds, ``[y, x]``; ``removed`` is the judgement of what was taken away,
    None for a slice that was found clean and skipped; the rest is as in :class:`Record`."""

    stored: Array
    clipped: int
    difference: float
    deviation: float
    removed: Residual | None
    score: float | None = None
    constant: bool = False


class Worker:
    """Restores slices of one manifest, in one process.

    ``make`` gives another runtime than the oracle. Raises CannotCompare where the networks built here are not
    those of the manifest.
    """

    def __init__(
        self, manifest: Manifest, threads: int | None = None, make: MakeNetwork | None = None
    ) -> None:
        self.manifest, self._threads, self._make = manifest, threads, make

    @cached_property
    def volume(self) -> Volume:
        """The input, opened here: handles must not cross processes."""
        return open_volume(self.manifest.source)

    @cached_property
    def store(self) -> SliceStore:
        """The output."""
        return self.manifest.store(self.volume.about)

    @cached_property
    def _restorer(self) -> Restorer:
        recipe = self.manifest.recipe
        _, height, width = self.volume.about.shape
        built = recipe_for(recipe.quality, recipe.profile, (height, width), None)
        if built.tile == recipe.tile:
            _require_equal_networks(built.networks, recipe.networks)
        return Restorer(recipe, (height, width), self._threads, self._make)

    @cached_property
    def _selector(self) -> SliceSelector:
        recipe, graph = self.manifest.recipe, quantized_selector()
        _require_equal_networks(digest_of([graph]), recipe.selector)
        return SliceSelector(network_maker(recipe, self._threads, self._make)(graph))

    def restore(self, index: int) -> RestoredSlice:
        """Slice ``index`` of the input, restored. Raises FeedError for one that cannot be read, or holds
        NaN."""
        scale, noise = self.manifest.scale, self.manifest.noise
        window = window_of(self.volume, index, scale, self.manifest.mask)
        score = self._selector.score(window.grey) if self.manifest.recipe.selector else None
        if score is not None and score <= 0:
            return self._skipped(window, score)
        masked = window.masked
        grey = mix(window.grey, self._restorer(window.grey), noise, self.manifest.strength)
        values = scale.value(grey)
        values[masked] = window.measured[masked]
        stored = self.manifest.encoding.encode(values)
        seen = window.grey[..., 1]
        clipped = int(np.count_nonzero(((seen < CLIPPED_BELOW) | (seen > CLIPPED_ABOVE)) & ~masked))
        mean, deviation = difference_of(seen[~masked], grey[~masked])
        unit = (scale.high - scale.low) / 0.8
        removed = judge_residual(window.grey, grey, noise.views, masked)
        constant = is_constant(window.measured, masked)
        return RestoredSlice(stored, clipped, mean * unit, deviation * unit, removed, score, constant)

    def _skipped(self, window: Window, score: float) -> RestoredSlice:
        """The slice as it was measured, in the output's type."""
        stored = self.manifest.encoding.encode(window.measured.astype(np.float64))
        constant = is_constant(window.measured, window.masked)
        return RestoredSlice(stored, 0, 0.0, 0.0, None, score, constant)

    def finish(self, index: int) -> Record:
        """Restores slice ``index``, writes it, then its record."""
        began = time.perf_counter()
        result = self.restore(index)
        content = self.store.content(result.stored)
        write_whole(self.store.path(index - self.manifest.first), content)
        record = Record(
            index=index,
            name=self.volume.about.names[index],
            fingerprint=self.manifest.fingerprint,
            file=digest(content),
            bytes=len(content),
            pixels=pixels_digest(result.stored),
            clipped=result.clipped,
            difference=result.difference,
            deviation=result.deviation,
            judged=result.removed is None or result.removed.judged,
            structured=result.removed is not None and result.removed.structured,
            removed="nothing: found clean" if result.removed is None else result.removed.describe(),
            seconds=round(time.perf_counter() - began, 3),
            host=socket.gethostname(),
            score=result.score,
            skipped=result.removed is None,
            constant=result.constant,
        )
        record.write(self.manifest.state)
        return record


def _require_equal_networks(here: str, agreed: str) -> None:
    if here != agreed:
        raise CannotCompare(
            "the networks quantized on this machine are not those of the manifest: versions of karat24 differ"
        )


def pixels_digest(stored: Array) -> str:
    """SHA-256 of values in order of rows, little-endian, whatever the format on disk."""
    return digest(np.ascontiguousarray(stored, stored.dtype.newbyteorder("<")).tobytes())


def difference_of(measured: Array, restored: Array) -> tuple[float, float]:
    """Mean and standard deviation of restored minus measured grey values ``[n]``, from integer sums."""
    if not measured.size:
        return 0.0, 0.0
    both = [np.clip(grey.astype(np.float64), -LARGEST_GREY, LARGEST_GREY) for grey in (restored, measured)]
    steps = np.rint((both[0] - both[1]) * FIXED_POINT).astype(np.int64)
    # At most 2**20 each, squared 2**40: sums of 2**22 of them are exact in 64 bits, and so are Python's of
    # these.
    parts = [steps[start : start + (1 << 22)] for start in range(0, steps.size, 1 << 22)]
    total = sum(int(part.sum()) for part in parts)
    squares = sum(int((part * part).sum()) for part in parts)
    variance = steps.size * squares - total * total
    return total / steps.size / FIXED_POINT, math.sqrt(variance) / steps.size / FIXED_POINT
