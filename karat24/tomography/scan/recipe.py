"""What is done to a slice: networks, arithmetic, tiles."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from karat24.export import write_model
from karat24.export.quantize import PRESETS, quantize_learnt
from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Graph
from karat24.refimpl.networks import fine_tune, learnt_ranges, tomogan, trained_weights
from karat24.tomography.selection import CROP, quantized_selector

Quality = Literal["fast", "best"]
MULTIPLE = 8
"""TomoGAN halves its image three times."""
TILE, HALO = 512, 16
BLENDED_TILE, BLEND = 64, 39

BASE_BYTES = 350_000_000
WHOLE_BYTES_PER_PIXEL, TILED_BYTES_PER_PIXEL, BLENDED_BYTES_PER_PIXEL = 150, 40, 160
"""Memory of a process that restores slices: measured at 1024 × 1024 to 2560 × 2560, rounded up."""


@dataclass(frozen=True)
class Recipe:
    """How slices of one size are restored.

    ``tile`` is the height and width of what the network sees, whole slices when they are at least as large as
    the slice. Tiles overlap as ``TileGrid`` says. ``repair`` runs Fine-Tune on each blended tile.
    ``networks`` is the SHA-256 of the quantized networks: two machines that disagree on it must not share a
    volume. ``selector`` is that of the network that finds clean slices, which stay as they are; it is empty
    where every slice is restored.
    """

    quality: Quality
    profile: str
    tile: tuple[int, int]
    halo: int
    blend: int
    networks: str
    selector: str = ""

    @property
    def repair(self) -> bool:
        """Whether Fine-Tune follows TomoGAN."""
        return self.blend > 0

    def describe(self) -> str:
        """For people."""
        if self.blend:
            size = f"{self.tile[0]} × {self.tile[1]}"
            return f"best: tiles of {size} averaged over {self.blend} pixels, + Fine-Tune"
        if self.halo:
            return f"fast: tiles of {self.tile[0]} × {self.tile[1]} with a halo of {self.halo}"
        return f"fast: whole slices, as {self.tile[0]} × {self.tile[1]}"


def recipe_for(
    quality: Quality, profile: str, shape: tuple[int, int], memory: int | None, skip_clean: bool = False
) -> Recipe:
    """The recipe for slices ``[y, x]``; ``memory`` is what one process may take, bytes, None for any.

    ``skip_clean`` leaves clean slices as they are. Raises UsageError when not even tiles fit, or when slices
    are too small for the network that finds clean ones.
    """
    if skip_clean and min(shape) < CROP:
        raise UsageError(
            f"--skip-clean looks at {CROP} × {CROP} pixels of a slice; here are {shape[0]} × {shape[1]} only"
        )
    whole = tuple(-(-size // MULTIPLE) * MULTIPLE for size in shape)
    tile, halo, blend = (whole[0], whole[1]), 0, 0
    if quality == "best":
        tile, blend = (BLENDED_TILE, BLENDED_TILE), BLEND
    elif memory is not None and bytes_needed(shape, tile, 0, 0) > memory:
        tile, halo = (TILE, TILE), HALO
    needed = bytes_needed(shape, tile, halo, blend)
    if memory is not None and needed > memory:
        raise UsageError(
            f"--max-memory: a process that restores {shape[0]} × {shape[1]} pixels takes about "
            f"{needed / 1e9:.2g} GB; allow that, or {'give --quality fast' if blend else 'restore parts'}"
        )
    networks = digest_of(networks_for(tile, blend > 0))
    selector = digest_of([quantized_selector()]) if skip_clean else ""
    return Recipe(quality, profile, tile, halo, blend, networks, selector)


def digest_of(graphs: Iterable[Graph]) -> str:
    """SHA-256 of the networks' .tflite files."""
    return hashlib.sha256(b"".join(write_model(graph) for graph in graphs)).hexdigest()


def bytes_needed(shape: tuple[int, int], tile: tuple[int, int], halo: int, blend: int) -> int:
    """About the memory of one process that restores slices."""
    per_pixel = WHOLE_BYTES_PER_PIXEL
    if blend:
        per_pixel = BLENDED_BYTES_PER_PIXEL
    elif halo:
        per_pixel = TILED_BYTES_PER_PIXEL
    return BASE_BYTES + per_pixel * max(shape[0] * shape[1], tile[0] * tile[1] if not blend else 0)


@lru_cache(maxsize=4)
def networks_for(tile: tuple[int, int], repair: bool) -> tuple[Graph, ...]:
    """TomoGAN, and Fine-Tune if asked for, in int8 with the weights that were trained to be rounded."""
    weights = [trained_weights("tomogan", "bilinear", aware=True), trained_weights("fine-tune", aware=True)]
    if weights[0] is None or weights[1] is None:
        raise UsageError("the trained weights are missing; install karat24 again")
    graphs = [
        quantize_learnt(tomogan(*tile, "bilinear", weights[0]), learnt_ranges(weights[0]), PRESETS["int8"])
    ]
    if repair:
        second = fine_tune(*tile, weights[1])
        graphs.append(quantize_learnt(second, learnt_ranges(weights[1]), PRESETS["int8"]))
    return tuple(graphs)
