"""Layers a run without a trace does along with the one before: a table applied to bytes just computed.

A ReLU, a logistic function, a rescaling of int8 to int8: each maps one byte to one byte. Behind a
convolution whose output nobody else reads, it is applied tile by tile while the bytes are in the cache,
and the tensor between the two is never stored. Each step rounds as it did; the bits are the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from refimpl.contract import Kernel
from refimpl.graph import Graph
from refimpl.kernels.lookup import Lookup


def fuse(graph: Graph, kernels: Sequence[Kernel]) -> tuple[Graph, tuple[Kernel, ...]]:
    """What is left to do of a graph whose layers run with these kernels: the graph and its kernels.

    Layers keep their numbers. One that is applied to a tensor as it is computed is left without inputs
    and outputs, and the layer before writes its output.
    """
    layers, fused = list(graph.layers), list(kernels)
    writers = {index: layer.index for layer in graph.layers for index in layer.outputs}
    reads = Counter(index for layer in graph.layers for index in layer.inputs)
    for layer, kernel in zip(graph.layers, kernels, strict=True):
        if not isinstance(kernel, Lookup) or kernel.table is None:
            continue
        between = layer.inputs[0]
        if between not in writers or between in graph.outputs or reads[between] > 1:
            continue
        writer = writers[between]
        then = getattr(fused[writer], "then", None)
        if then is None:
            continue
        fused[writer] = then(kernel.table)
        layers[writer] = replace(layers[writer], outputs=layer.outputs)
        layers[layer.index] = replace(layer, inputs=(), outputs=())
        writers[layer.outputs[0]] = writer
    return replace(graph, layers=tuple(layers)), tuple(fused)
