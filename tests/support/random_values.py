"""Random values for a graph's inputs."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.graph import Array, Graph


def random_feeds(graph: Graph, seed: int = 0) -> list[Array]:
    generator = np.random.default_rng(seed)
    feeds = []
    for index in graph.inputs:
        tensor = graph.tensors[index]
        if tensor.dtype == "float32":
            feeds.append(generator.normal(size=tensor.shape).astype(np.float32))
        else:
            limits = np.iinfo(tensor.dtype)
            feeds.append(generator.integers(limits.min, limits.max + 1, tensor.shape).astype(tensor.dtype))
    return feeds
