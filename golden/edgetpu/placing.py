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
SAMPLE = 1024
"""Bytes by which every place is judged before the best is compared in full."""

MAX_OCCURRENCES = 256
"""Places tried for one run of bytes; only made-up files repeat a layer more often."""

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

    def free(self, start: int, size: int) -> bool:
        """Whether these bytes exist and are not explained yet."""
        return 0 <= start <= len(self.content) - size and not self.explained[start : start + size].any()

    def claim(self, start: int, size: int) -> Place:
        """Marks bytes as explained; what is looked for next is looked for behind them."""
        self.explained[start : start + size] = True
        self.claims.add((start, start + size))
        self.cursor = -(-(start + size) // ALIGNMENT) * ALIGNMENT
        return Place(self.number, start, start + size)

    def occurrences(self, pattern: bytes) -> Iterator[int]:
        """Where the bytes occur, from a multiple of 64 on, the place behind the last found first."""
        if self.content.startswith(pattern, self.cursor):
            yield self.cursor
        at = -1
        for _ in range(MAX_OCCURRENCES):
            at = self.content.find(pattern, (at // ALIGNMENT + 1) * ALIGNMENT if at >= 0 else 0)
            if at < 0:
                return
            if at % ALIGNMENT == 0:
                yield at

    def left_over(self) -> list[tuple[int, int]]:
        """Runs of bytes that are not explained and not all zero, as first byte and end."""
        nonzero = np.frombuffer(self.content, np.uint8) != 0
        edges = np.flatnonzero(np.diff(np.concatenate([[0], (~self.explained).view(np.int8), [0]])))
        runs = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
        return [(start, stop) for start, stop in runs if nonzero[start:stop].any()]


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
    for form in forms(weights):
        for tile in tiles(weights):
            content = _whole(weights, form, tile)
            found = closest(blobs, content)
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
        start = _candidate(blob, np.frombuffer(content, np.uint8))
        if start is not None:
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


def _candidate(blob: Blob, content: Array) -> int | None:
    """The free place whose first bytes are most like the content's, if there is room for it anywhere."""
    taken = np.concatenate([[0], np.cumsum(blob.explained)])
    starts = np.arange(0, len(blob.content) - content.size + 1, ALIGNMENT)
    starts = starts[taken[starts + content.size] == taken[starts]]
    if not starts.size:
        return None
    sample = content[:SAMPLE]
    windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(blob.content, np.uint8), sample.size)
    alike = [
        (windows[some] == sample).sum(axis=1) for some in np.array_split(starts, starts.size // 4096 + 1)
    ]
    return int(starts[int(np.argmax(np.concatenate(alike)))])


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
