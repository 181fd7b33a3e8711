"""Networks as float32 graphs: the flagships, those of the selective paper, and how to chain graphs."""

from __future__ import annotations

from collections.abc import Mapping

from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Array, Graph
from karat24.refimpl.networks.chain import chain
from karat24.refimpl.networks.fine_tune import fine_tune
from karat24.refimpl.networks.resnet50 import resnet50
from karat24.refimpl.networks.selector import SelectorLayers, selector
from karat24.refimpl.networks.tomogan import Upsampling, tomogan
from karat24.refimpl.networks.vgg16 import vgg16
from karat24.refimpl.networks.weights import learnt_ranges, load_weights, parted, trained_weights

__all__ = [
    "NETWORKS",
    "SelectorLayers",
    "Upsampling",
    "chain",
    "fine_tune",
    "learnt_ranges",
    "load_weights",
    "network",
    "resnet50",
    "selector",
    "tomogan",
    "trained_weights",
    "vgg16",
]

NETWORKS = ("tomogan", "fine-tune", "chained")
"""The networks that ship, by the names the command line knows."""


def network(
    name: str,
    height: int,
    width: int,
    upsampling: Upsampling = "bilinear",
    weights: Mapping[str, Array] | None = None,
    seed: int = 0,
) -> Graph:
    """The named network; ``upsampling`` matters to TomoGAN only. Raises UsageError for other names.

    ``chained`` is TomoGAN and then Fine-Tune as one graph; Fine-Tune's weights are called ``fine-tune/...``.
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
    raise UsageError(f"no network {name!r}; known: {', '.join(NETWORKS)}")
