"""What a run without a trace does: the layers that are left of a graph, and the tensors between them.

A graph is faithful to its file; a plan is not. Layers may have been absorbed by their neighbours, tensors may
be constants although the file computes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from karat24.refimpl.contract import Kernel
from karat24.refimpl.graph import Graph, Tensor


@dataclass(frozen=True)
class PlannedLayer:
    """A kernel and the tensors it reads and writes, by index; -1 is an optional input left out.

    ``origin`` is the graph's layer it computes, the last one where it computes several. It is the layer's
    time: what lives while layers of one origin run must not share memory.
    """

    kernel: Kernel
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    origin: int


@dataclass(frozen=True)
class RunPlan:
    """Layers in the order they run. Tensors keep the graph's indices; ``layer_count`` is the graph's.

    ``nhwc_forms``: the index of a tensor's NHWC form, behind those of the graph, for each that has one.
    """

    tensors: tuple[Tensor, ...]
    layers: tuple[PlannedLayer, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    layer_count: int
    nhwc_forms: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: Graph, kernels: Sequence[Kernel]) -> RunPlan:
        """Every layer of the graph by itself."""
        layers = (
            PlannedLayer(kernel, layer.inputs, layer.outputs, layer.index)
            for layer, kernel in zip(graph.layers, kernels, strict=True)
        )
        return cls(graph.tensors, tuple(layers), graph.inputs, graph.outputs, len(graph.layers))
