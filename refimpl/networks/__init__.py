"""Networks as float32 graphs: the flagships, those of the selective paper, and how to chain graphs."""

from __future__ import annotations

from collections.abc import Mapping

from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Array, Graph
from karat24.refimpl.networks.chain import chain
from karat24.refimpl.networks.fine_tune import fine_tune
from karat24.refimpl.networks.resnet50 import resnet50
from karat24.refimpl.networks.selector import SelectorLayers, selector
from karat24.refimpl.networks.slice_selector import slice_selector
from karat24.refimpl.networks.tomogan import Upsampling, tomogan
from karat24.refimpl.networks.vgg16 import vgg16
from karat24.refimpl.networks.weights import (
    SCALE,
    learnt_ranges,
    load_weights,
    parted,
    trained_weights,
    without_ranges,
)

__all__ = [
    "NETWORKS",
    "SCALE",
    "SelectorLayers",
    "Upsampling",
    "chain",
    "fine_tune",
    "learnt_ranges",
    "load_weights",
    "network",
    "resnet50",
    "selector",
    "slice_selector",
    "tomogan",
    "trained_weights",
    "vgg16",
    "without_ranges",
]

WIDTHS = {"": 1.0, "-0.75": 0.75, "-0.5": 0.5, "-0.25": 0.25}
"""Ends of names and the widths they stand for."""

FIXED_SIZE = 32
"""Height and width of what VGG16 and ResNet50 read."""

NETWORKS = (
    "tomogan", "fine-tune", "chained", "slice-selector",
    *(f"{name}{end}" for name in ("vgg16", "resnet50") for end in WIDTHS), "tiny-5", "tiny-3",
)  # fmt: skip
"""The networks the command line knows. Weights ship for the first four; the others are the selective paper's,
and their weights are random from a seed unless they are given."""


def usual_size(name: str) -> int:
    """Height and width of a network's input unless others are given."""
    return FIXED_SIZE if name.startswith(("vgg16", "resnet50", "tiny")) else 64


def network(
    name: str,
    height: int,
    width: int,
    upsampling: Upsampling = "bilinear",
    weights: Mapping[str, Array] | None = None,
    seed: int = 0,
) -> Graph:
    """The named network; ``upsampling`` matters to TomoGAN only.

    ``chained`` is TomoGAN and then Fine-Tune as one graph; Fine-Tune's weights are called ``fine-tune/...``.
    ``vgg16-0.5`` is VGG16 at half its width. Raises UsageError for other names, and for a size that VGG16
    or ResNet50 does not read.
    """
    if name == "tomogan":
        return tomogan(height, width, upsampling, weights, seed)
    if name == "fine-tune":
        return fine_tune(height, width, weights, seed)
    if name == "chained":
        restoring, repairing = parted(weights)
        return chain(
            tomogan(height, width, upsampling, restoring, seed), fine_tune(height, width, repairing, seed)
        )
    if name == "slice-selector":
        return slice_selector(height, width, weights, seed)
    if name in ("tiny-5", "tiny-3"):
        layers: SelectorLayers = "tiny-5" if name == "tiny-5" else "tiny-3"
        return selector(layers, height, width, weights=weights, seed=seed)
    if name not in NETWORKS:
        raise UsageError(f"no network {name!r}; known: {', '.join(NETWORKS)}")
    if (height, width) != (FIXED_SIZE, FIXED_SIZE):
        raise UsageError(f"{name} reads images of {FIXED_SIZE}×{FIXED_SIZE}, not of {height}×{width}")
    base, dash, end = name.partition("-")
    return (vgg16 if base == "vgg16" else resnet50)(WIDTHS[dash + end], weights=weights, seed=seed)
