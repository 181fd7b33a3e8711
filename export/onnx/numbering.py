"""A runtime's own graph of a network under the tensor indices of the network's file."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from karat24.export.onnx.schema import MICROSOFT
from karat24.refimpl.graph import Graph, Layer


def numbered_like(graph: Graph, file: Graph) -> Graph:
    """``graph`` with the tensor indices of ``file`` wherever both have a tensor of one name.

    ``file`` is the reading of a model file, ``graph`` that of a file a runtime made of it. Tensors of
    ``file`` that ``graph`` lacks keep their places, so that indices mean one thing in both; no layer
    reads or writes them. Tensors that only ``graph`` has come last. Inputs, outputs and signatures are
    in the order of ``graph``.
    """
    index_of = {tensor.name: tensor.index for tensor in file.tensors}
    tensors = list(file.tensors)
    moved = {-1: -1}
    for tensor in graph.tensors:
        index = index_of.get(tensor.name, len(tensors))
        moved[tensor.index] = index
        renumbered = dataclasses.replace(tensor, index=index)
        if index == len(tensors):
            tensors.append(renumbered)
        else:
            tensors[index] = renumbered
    return dataclasses.replace(
        graph,
        tensors=tuple(tensors),
        layers=tuple(
            dataclasses.replace(
                layer,
                inputs=tuple(moved[i] for i in layer.inputs),
                outputs=tuple(moved[i] for i in layer.outputs),
            )
            for layer in graph.layers
        ),
        inputs=tuple(moved[i] for i in graph.inputs),
        outputs=tuple(moved[i] for i in graph.outputs),
        signatures=tuple(
            dataclasses.replace(
                signature,
                inputs={name: moved[i] for name, i in signature.inputs.items()},
                outputs={name: moved[i] for name, i in signature.outputs.items()},
            )
            for signature in graph.signatures
        ),
    )


def differing_layers(expected: Graph, found: Graph) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """Layers of each graph that the other one lacks although it computes their inputs.

    A layer is identified by its op, its inputs and the element types of its outputs; names, attributes and
    order do not count, and a FusedConv counts as a Conv and the ops fused into it. Everything after a
    difference differs, so only the first layers are returned.
    """
    ours, theirs = _Described(expected), _Described(found)
    return ours.lacking_in(theirs), theirs.lacking_in(ours)


class _Described:
    """A graph whose tensors are identified by how they are computed."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._tensors: dict[int, str] = {
            tensor.index: _digest(tensor.dtype, tensor.data.tobytes())
            for tensor in graph.tensors
            if tensor.data is not None
        }
        self._tensors |= {index: _digest("input", graph.tensors[index].name) for index in graph.inputs}
        self._layers: dict[int, str] = {}
        for layer in graph.layers:
            read = _without_absent([self._tensors.get(index, "") for index in layer.inputs])
            types = [graph.tensors[index].dtype for index in layer.outputs]
            op, *fused = ("Conv", *_activation(layer)) if layer.op == FUSED_CONV else (layer.op,)
            self._layers[layer.index] = key = _digest(op, *read, *types)
            if fused:
                key = _digest(fused[0], _digest(key, "0"), *fused[1:], *types)
            self._tensors |= {index: _digest(key, str(place)) for place, index in enumerate(layer.outputs)}

    def lacking_in(self, other: _Described) -> tuple[Layer, ...]:
        known, layers = set(other._tensors.values()), set(other._layers.values())
        return tuple(
            layer
            for layer in self._needed()
            if self._layers[layer.index] not in layers and known.issuperset(self._computed(layer))
        )

    def _needed(self) -> list[Layer]:
        """The layers whose results are used: ONNX Runtime sometimes leaves unused layers in its graph."""
        used, needed = set(self._graph.outputs), []
        for layer in reversed(self._graph.layers):
            if used.intersection(layer.outputs):
                used.update(layer.inputs)
                needed.append(layer)
        return needed[::-1]

    def _computed(self, layer: Layer) -> list[str]:
        """The inputs of the layer that are not constants."""
        tensors = self._graph.tensors
        return [self._tensors[i] for i in layer.inputs if i != -1 and not tensors[i].is_constant]


FUSED_CONV = f"{MICROSOFT}:FusedConv"


def _activation(layer: Layer) -> list[str]:
    """The op that the optimizer fused into a float convolution, with its constants."""
    name, ends = layer.attributes.get("activation"), layer.attributes.get("activation_params")
    if not isinstance(name, str):
        return []
    constants = ends if name == "Clip" and isinstance(ends, tuple) else ()
    return [name, *(_digest("float32", np.float32(value).tobytes()) for value in constants)]


def _without_absent(read: list[str]) -> list[str]:
    """An optional input left out at the end may be left out altogether."""
    while read and not read[-1]:
        read = read[:-1]
    return read


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        content = part if isinstance(part, bytes) else part.encode()
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()
