"""Public pairs of a model and what the Edge TPU's compiler made of it."""

from __future__ import annotations

from functools import cache

from benchmarks.edgetpu_flips import PAIRS, Pair, read_pair
from tests.shared_models import MODELS, require

__all__ = ["PAIRS", "pair"]


@cache
def pair(name: str) -> Pair:
    """Source and compiled model; skips where they are absent."""
    for end in ("", "_edgetpu"):
        require(f"coral/{name}{end}.tflite")
    return read_pair(MODELS, name)
