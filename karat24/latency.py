"""How long a device takes to restore one image, split as in the paper's Table I."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from karat24.delegates.protocol import Model
from karat24.export.tflite import read_tflite
from karat24.real_values import quantize_values
from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Array, Graph, Tensor
from karat24.tomography.restoration import dequantize_values
from karat24.tomography.tiles import TileGrid

HALO = 2
"""Pixels at either side that Fine-Tune reads: it runs in tiles where it is not made for the whole image."""


class RunsTiles(Protocol):
    """What a delegate must be able to do to be timed here."""

    def run_tiles(self, model: Model, tiles: Array) -> tuple[Array, float]:
        """Results ``[tile, y, x, channel]`` and seconds."""


@dataclass(frozen=True)
class Split:
    """Seconds for one image: TomoGAN on all tiles, cutting and stitching on the host, Fine-Tune."""

    tomogan: float
    stitching: float
    fine_tune: float
    restored: Array

    @property
    def total(self) -> float:
        """Seconds in all."""
        return self.tomogan + self.stitching + self.fine_tune


@dataclass(frozen=True)
class Stage:
    """A network's file and its ends; the file may be compiled for a device."""

    model: Path
    graph: Graph

    @property
    def image(self) -> Tensor:
        """Its input."""
        return self.graph.tensors[self.graph.inputs[0]]

    @property
    def output(self) -> Tensor:
        """Its output."""
        return self.graph.tensors[self.graph.outputs[0]]


def load_stage(path: Path) -> Stage:
    """Reads a network. Raises UsageError for one that is not one 8-bit image in and one of its size out."""
    stage = Stage(path, read_tflite(path))
    ends = (stage.image, stage.output)
    if len(stage.graph.inputs) != 1 or any(len(t.shape) != 4 or t.shape[0] != 1 for t in ends):
        raise UsageError(f"{path}: a network of the restoration takes and gives one image [1, y, x, channel]")
    if stage.image.shape[1:3] != stage.output.shape[1:3] or any(
        t.dtype not in ("int8", "uint8") for t in ends
    ):
        raise UsageError(
            f"{path}: its ends are {ends[0].shape} {ends[0].dtype} and {ends[1].shape} {ends[1].dtype}"
        )
    return stage


def measure(delegate: RunsTiles, tomogan: Stage, fine_tune: Stage | None, image: Array) -> Split:
    """Restores one image of real values ``[y, x, 3]`` in plain tiles and times its parts.

    Converting between real values and the networks' integers counts as stitching, as it is the host's work.
    """
    clock = _Clock()
    height, width, _ = image.shape
    grid = TileGrid(height, width, *tomogan.image.shape[1:3])
    tiles = clock.run(lambda: grid.cut(quantize_values(image, tomogan.image)))
    made, seconds = delegate.run_tiles(tomogan.model, tiles)
    restored = clock.run(lambda: dequantize_values(grid.stitch(made), tomogan.output))
    if fine_tune is None:
        return Split(seconds, clock.seconds, 0.0, restored)
    tile_height, tile_width = fine_tune.image.shape[1:3]
    whole = (tile_height, tile_width) == (height, width)
    second = TileGrid(height, width, tile_height, tile_width, 0 if whole else HALO)
    tiles = clock.run(lambda: second.cut(quantize_values(restored, fine_tune.image)))
    repaired, more = delegate.run_tiles(fine_tune.model, tiles)
    final = clock.run(lambda: dequantize_values(second.stitch(repaired), fine_tune.output))
    return Split(seconds, clock.seconds, more, final)


def median(splits: list[Split]) -> Split:
    """The medians of each part; the image is the last one's."""
    parts = ("tomogan", "stitching", "fine_tune")
    tomogan, stitching, fine_tune = (
        statistics.median(getattr(split, part) for split in splits) for part in parts
    )
    return Split(tomogan, stitching, fine_tune, splits[-1].restored)


class _Clock:
    """Adds up the seconds of what it runs."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def run(self, work: Callable[[], Array]) -> Array:
        start = time.perf_counter()
        result = work()
        self.seconds += time.perf_counter() - start
        return result
