"""Layers a run without a trace does along with a convolution beside them, or once for all.

A ReLU, a logistic function, a rescaling of int8 to int8: each maps one byte to one byte. Behind a
convolution whose output nobody else reads, it is applied tile by tile while the bytes are in the cache,
and the tensor between the two is never stored. A border of zero points before a convolution is what the
convolution itself reads outside an image, so the padded image is not stored either. The largest of each 2x2
pixels is taken from a convolution's tile, and written beside it. What depends on no fed value, such as a
shape and what is made of it, is computed once. Each step rounds as it did; the bits are the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from refimpl.contract import Kernel
from refimpl.graph import DTYPES, Graph, Layer
from refimpl.kernels.elementwise.lookup import Lookup
from refimpl.kernels.images.pooling import MaxPool
from refimpl.kernels.moves.copies import ShapeOf
from refimpl.kernels.moves.padding import Padding


def fuse(graph: Graph, kernels: Sequence[Kernel]) -> tuple[Graph, tuple[Kernel, ...]]:
    """What is left to do of a graph whose layers run with these kernels: the graph and its kernels.

    Layers keep their numbers. One that a neighbour does along with its own work is left without inputs
    and outputs; the neighbour writes its output, or reads its input.
    """
    fusion = _Fusion(graph, kernels)
    for layer, kernel in zip(graph.layers, kernels, strict=True):
        if fusion.depends_on_no_feed(layer, kernel):
            fusion.settle(layer, kernel)
        elif isinstance(kernel, Lookup):
            fusion.apply_as_computed(layer, kernel)
        elif isinstance(kernel, Padding):
            fusion.leave_border_to_reader(layer, kernel)
        elif isinstance(kernel, MaxPool):
            fusion.pool_as_computed(layer, kernel)
    changed = replace(graph, tensors=tuple(fusion.tensors), layers=tuple(fusion.layers))
    return changed, tuple(fusion.kernels)


class _Fusion:
    """Layers and kernels, changed step by step, and who writes and reads each tensor."""

    def __init__(self, graph: Graph, kernels: Sequence[Kernel]) -> None:
        self.tensors, self.layers, self.kernels = list(graph.tensors), list(graph.layers), list(kernels)
        self._kept = set(graph.outputs)
        self._writers = {index: layer.index for layer in graph.layers for index in layer.outputs}
        self._readers = {index: layer.index for layer in graph.layers for index in layer.inputs}
        self._reads = Counter(index for layer in graph.layers for index in layer.inputs)

    def depends_on_no_feed(self, layer: Layer, kernel: Kernel) -> bool:
        """Whether a layer computes the same in every run, and not what the caller asks for."""
        if self._kept.intersection(layer.outputs):
            return False
        return isinstance(kernel, ShapeOf) or all(
            index == -1 or self.tensors[index].is_constant for index in layer.inputs
        )

    def settle(self, layer: Layer, kernel: Kernel) -> None:
        """Computes such a layer now: its outputs are constants from here on."""
        inputs = [None if index == -1 else self.tensors[index].data for index in layer.inputs]
        outputs = [np.empty(t.shape, DTYPES[t.dtype]) for t in (self.tensors[i] for i in layer.outputs)]
        kernel(inputs, outputs, None)
        for index, output in zip(layer.outputs, outputs, strict=True):
            output.flags.writeable = False  # a constant need not be copied
            self.tensors[index] = replace(self.tensors[index], data=output)
        self._drop(layer)

    def apply_as_computed(self, layer: Layer, lookup: Lookup) -> None:
        """Has the layer before look its results up."""
        between = layer.inputs[0]
        if lookup.table is None or between not in self._writers or not self._is_private(between):
            return
        writer = self._writers[between]
        then = getattr(self.kernels[writer], "then", None)
        if then is None:
            return
        self.kernels[writer] = then(lookup.table)
        self.layers[writer] = replace(self.layers[writer], outputs=layer.outputs)
        self._drop(layer)
        self._writers[layer.outputs[0]] = writer

    def pool_as_computed(self, layer: Layer, pool: MaxPool) -> None:
        """Has the layer before write the maxima, too."""
        (between,) = layer.inputs
        if pool.halving is None or between not in self._writers:
            return
        writer = self._writers[between]
        halved = getattr(self.kernels[writer], "halved", None)
        if halved is None or len(self.layers[writer].outputs) > 1:
            return
        self.kernels[writer] = halved(pool.halving)
        self.layers[writer] = replace(self.layers[writer], outputs=(between, *layer.outputs))
        self._drop(layer)

    def leave_border_to_reader(self, layer: Layer, padding: Padding) -> None:
        """Has the layer behind read the image as it is, and its own border for the rest."""
        (between,) = layer.outputs
        if padding.border is None or not self._is_private(between) or between not in self._readers:
            return
        reader = self._readers[between]
        behind = getattr(self.kernels[reader], "behind", None)
        kernel = behind(padding.border) if behind is not None else None
        if kernel is None:
            return
        inputs = (layer.inputs[0] if index == between else index for index in self.layers[reader].inputs)
        self.kernels[reader] = kernel
        self.layers[reader] = replace(self.layers[reader], inputs=tuple(inputs))
        self._drop(layer)

    def _is_private(self, tensor: int) -> bool:
        """Whether nobody but one layer, once, reads it."""
        return tensor not in self._kept and self._reads[tensor] <= 1

    def _drop(self, layer: Layer) -> None:
        self.layers[layer.index] = replace(layer, inputs=(), outputs=())
