"""Finding where a layer's parameters lie in a compiled file, and what differs from the source's.

Layers lie one after another in order of execution, each from a multiple of 64 bytes on. So a layer is
looked for right behind the last one found, then anywhere; it counts as found only where every byte of it
is as the source says. What is left over is compared with the bytes no layer explains.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from karat24.golden.edgetpu.layout import Form, Weights, block_fields, encoded, forms, tiles
from karat24.refimpl.graph import Array

ALIGNMENT = 64
PROBES = 64
"""Bytes by which places are judged before some are compared in full."""

CANDIDATES = 8
"""Places compared in full."""

MAX_OCCURRENCES = 256
"""Places tried for one run of bytes; only made-up files repeat a layer more often."""

FEW = 16
"""Places that are as well compared in full as by another byte."""

ALIKE = 0.5
"""From this share of equal bytes on, a place holds the layer with differences, not something else."""


@dataclass(frozen=True)
class Place:
    """Where something lies: which blob, first byte, and the byte after the last."""

    blob: int
    start: int
    stop: int


@dataclass(frozen=True)
class Difference:
    """One value that is not the source's. ``channel`` is the output channel, ``position`` the value's
    index in the source's own tensor; both are -1 for what only fills up. ``byte`` is its place."""

    field: str
    channel: int
    position: int
    source: float
    compiled: float
    byte: int


class Blob:
    """The parameters of one executable, and which of their bytes are explained."""

    def __init__(self, number: int, kind: str, content: bytes) -> None:
        self.number, self.kind, self.content = number, kind, content
        self.explained: Array = np.zeros(len(content), bool)
        self.cursor = 0
        self.claims: set[tuple[int, int]] = set()
        self._before: Array | None = None

    def free(self, start: int, size: int) -> bool:
        """Whether these bytes exist and are not explained yet."""
        return 0 <= start <= len(self.content) - size and not self.explained[start : start + size].any()

    def free_places(self, size: int) -> Array:
        """Of every multiple of 64 with room for ``size`` bytes behind it, whether these are free, bool."""
        if self._before is None:  # how many bytes are explained before each
            self._before = np.concatenate([np.zeros(1, np.int32), np.cumsum(self.explained, dtype=np.int32)])
        starts = slice(0, max(len(self.content) - size + 1, 0), ALIGNMENT)
        free: Array = self._before[starts] == self._before[size:][starts]
        return free

    def claim(self, start: int, size: int) -> Place:
        """Marks bytes as explained; what is looked for next is looked for behind them."""
        self.explained[start : start + size] = True
        self.claims.add((start, start + size))
        self._before = None
        self.cursor = -(-(start + size) // ALIGNMENT) * ALIGNMENT
        return Place(self.number, start, start + size)

    def occurrences(self, pattern: bytes) -> Iterator[int]:
        """Where the bytes occur, from a multiple of 64 on, the place behind the last found first."""
        if self.content.startswith(pattern, self.cursor):
            yield self.cursor
        wanted, there = np.frombuffer(pattern, np.uint8), np.frombuffer(self.content, np.uint8)
        places = np.arange(0, max(len(self.content) - len(pattern) + 1, 0), ALIGNMENT)
        for probe in _telling(wanted):
            if places.size <= FEW:
                break
            places = places[there[places + probe] == wanted[probe]]
        for place in places[:MAX_OCCURRENCES].tolist():
            if self.content.startswith(pattern, place):
                yield place

    def left_over(self) -> list[tuple[int, int]]:
        """Runs of bytes that are not explained and not all zero, as first byte and end."""
        nonzero = np.frombuffer(self.content, np.uint8) != 0
        edges = np.flatnonzero(np.diff(np.concatenate([[0], (~self.explained).view(np.int8), [0]])))
        runs = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
        return [(start, stop) for start, stop in runs if nonzero[start:stop].any()]


def _telling(content: Array) -> list[int]:
    """Some of the content's bytes, all over it; none that are 0, as long as there are others: a record is
    mostly 0, like much of a blob."""
    nonzero = np.flatnonzero(content)
    chosen = nonzero if nonzero.size else np.arange(content.size)
    probes: list[int] = chosen[np.linspace(0, chosen.size - 1, PROBES).astype(np.int64)].tolist()
    return probes


def place_bytes(blobs: list[Blob], content: bytes) -> Place | None:
    """Claims the first free occurrence of the bytes; None where there is none."""
    for blob in blobs:
        for at in blob.occurrences(content):
            if blob.free(at, len(content)):
                return blob.claim(at, len(content))
    return None


def place_weights(blobs: list[Blob], weights: Weights) -> Place | None:
    """Claims the place that holds a layer's weights to the last bit; None where there is none.

    A layer whose every number is another's, too, may lie where that one lies.
    """
    for form in forms(weights):
        for tile in tiles(weights):
            place = place_bytes(blobs, _whole(weights, form, tile))
            if place is not None:
                return place
    mixed = _place_mixed(blobs, weights) if len(tiles(weights)) > 1 else None
    return mixed or _shared(blobs, weights)


def _shared(blobs: list[Blob], weights: Weights) -> Place | None:
    """The place of another layer that holds the same bytes."""
    for form in forms(weights):
        for tile in tiles(weights):
            content = _whole(weights, form, tile)
            for blob in blobs:
                for start, stop in sorted(blob.claims):
                    if stop - start == len(content) and blob.content.startswith(content, start):
                        return Place(blob.number, start, stop)
    return None


def _place_mixed(blobs: list[Blob], weights: Weights) -> Place | None:
    """A place whose blocks differ in how many input channels they keep inside the window's loop."""
    for form in forms(weights):
        starts = range(0, weights.channels, form.block)
        blocks = [[encoded(block_fields(weights, form, f, tile)) for tile in tiles(weights)] for f in starts]
        size = sum(len(choices[0]) for choices in blocks)
        for blob in blobs:
            for first in blocks[0]:
                for start in blob.occurrences(first):
                    if blob.free(start, size) and _continues(blob, start, blocks):
                        return blob.claim(start, size)
    return None


def _continues(blob: Blob, start: int, blocks: list[list[bytes]]) -> bool:
    """Whether one choice of every block follows another from ``start`` on."""
    for choices in blocks:
        if not any(blob.content.startswith(choice, start) for choice in choices):
            return False
        start += len(choices[0])
    return True


def differences(blobs: list[Blob], weights: Weights) -> tuple[Place, list[Difference]] | None:
    """What differs where the layer most likely lies, and claims it; None where nothing is like it."""
    best: tuple[int, Blob, int, Form, int] | None = None
    places: dict[tuple[bool, int, int], tuple[Blob, int] | None] = {}
    for form in forms(weights):
        for tile in tiles(weights):
            content = _whole(weights, form, tile)
            # What fills up moves no byte: forms that differ in it alone lie in one place.
            key = form.bias, form.block, tile
            if key not in places:
                places[key] = closest(blobs, content)
            found = places[key]
            if found is not None:
                blob, start = found
                equal = _equal(blob, start, content)
                if best is None or equal > best[0]:
                    best = equal, blob, start, form, tile
    if best is None:
        return None
    _, blob, start, form, tile = best
    found_differences = list(_compare(blob, start, weights, form, tile))
    return blob.claim(start, len(_whole(weights, form, tile))), found_differences


def closest(blobs: list[Blob], content: bytes) -> tuple[Blob, int] | None:
    """The free place most like the bytes; None where none is at least half like them."""
    best: tuple[int, Blob, int] | None = None
    for blob in blobs:
        for start in _candidates(blob, np.frombuffer(content, np.uint8)):
            equal = _equal(blob, start, content)
            if equal >= ALIKE * len(content) and (best is None or equal > best[0]):
                best = equal, blob, start
    return None if best is None else best[1:]


def _equal(blob: Blob, start: int, content: bytes) -> int:
    there = np.frombuffer(blob.content, np.uint8, len(content), start)
    return int((there == np.frombuffer(content, np.uint8)).sum())


def _whole(weights: Weights, form: Form, tile: int) -> bytes:
    starts = range(0, weights.channels, form.block)
    return b"".join(encoded(block_fields(weights, form, first, tile)) for first in starts)


def _candidates(blob: Blob, content: Array) -> list[int]:
    """The free places that agree with the content in most of its bytes here and there, best first."""
    free = blob.free_places(content.size)
    there = np.frombuffer(blob.content, np.uint8)
    alike = np.zeros(free.size, np.int16)
    if not free.any():
        return []
    for probe in _telling(content):
        alike += there[probe::ALIGNMENT][: free.size] == content[probe]
    likeliest = np.argsort(np.where(free, -alike, 1), kind="stable")[:CANDIDATES]
    return [ALIGNMENT * int(place) for place in likeliest if free[place]]


def _compare(blob: Blob, start: int, weights: Weights, form: Form, tile: int) -> Iterator[Difference]:
    at = start
    origins = weights.positions()
    unfilled = Form(form.bias, form.block, (0.0, 0.0))
    per_channel = weights.filter.size // weights.channels
    for first in range(0, weights.channels, form.block):
        wanted = block_fields(weights, form, first, tile)
        sources = block_fields(origins, unfilled, first, tile)
        for field, source in zip(wanted, sources, strict=True):
            found = np.frombuffer(blob.content, field.values.dtype, field.values.size, at)
            width = field.values.itemsize
            for item in np.flatnonzero(found.view(f"u{width}") != field.values.view(f"u{width}")).tolist():
                position = int(source.values[item]) - 1
                channel = position
                if field.name == "filter" and position >= 0:
                    depthwise = weights.depthwise
                    channel = position % weights.channels if depthwise else position // per_channel
                values = field.values[item].item(), found[item].item()
                yield Difference(field.name, channel, position, *values, at + width * item)
            at += field.values.nbytes
