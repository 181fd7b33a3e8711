"""Weights set to 0 by magnitude, as Han et al., "Learning both Weights and Connections" (2015), do it.

Pruning without training the rest again costs accuracy; ``training.incremental`` alternates both.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from karat24.refimpl.cost import WEIGHTED
from karat24.refimpl.errors import ModelError, UsageError
from karat24.refimpl.graph import Array, Graph


def prune(graph: Graph, share: float, dense: Collection[str] = ()) -> Graph:
    """The float32 graph with the ``share`` of least magnitude of each filter set to 0.

    ``dense`` names layers, by their outputs, that stay whole. Of equal magnitudes the later weight goes
    first. Raises UsageError for a share outside 0 … 1 or a name that no layer with a filter has, ModelError
    for a filter that is not a float32 constant.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"share {share!r} of weights to prune is not between 0 and 1")
    tensors, left = list(graph.tensors), set(dense)
    for view in graph.views():
        weighted = WEIGHTED.get(view.op)
        if weighted is None:
            continue
        if view.output().name in left:
            left.discard(view.output().name)
            continue
        filter_ = view.input(weighted.filter)
        if filter_.data is None or filter_.dtype != "float32":
            raise ModelError(f"{view}: the filter {filter_.name!r} must be a float32 constant")
        tensors[filter_.index] = replace(filter_, data=filter_.data * kept(filter_.data, share))
    if left:
        raise UsageError(f"graph {graph.name!r} has no layer {sorted(left)[0]!r} with a filter")
    return replace(graph, tensors=tuple(tensors))


def kept(values: Array, share: float) -> Array:
    """True where a weight stays when ``round(share * size)`` of them go, those of least magnitude."""
    magnitudes = np.abs(values).reshape(-1)
    staying = magnitudes.size - round(share * magnitudes.size)
    mask = np.zeros(magnitudes.size, bool)
    if staying:
        least = np.partition(magnitudes, magnitudes.size - staying)[magnitudes.size - staying]
        mask[magnitudes > least] = True
        mask[np.flatnonzero(magnitudes == least)[: staying - np.count_nonzero(mask)]] = True
    return mask.reshape(values.shape)
