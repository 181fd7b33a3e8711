"""Cutting a part out of a graph, as a graph of its own that any runtime can load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Graph, Layer, Signature, Tensor


@dataclass(frozen=True)
class Cut:
    """A part of a graph; ``tensors`` maps its tensor indices to those of the graph it came from."""

    graph: Graph
    tensors: Mapping[int, int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", MappingProxyType(dict(self.tensors)))


def single_layer(graph: Graph, layer_index: int) -> Cut:
    """One layer with its constants. Its other inputs, each once, become the graph's
    inputs in the order the layer reads them; its outputs become the outputs.

    Raises UsageError when the graph has no such layer.
    """
    if not 0 <= layer_index < len(graph.layers):
        raise UsageError(f"no layer {layer_index}: the graph has {len(graph.layers)}, counted from 0")
    layer = graph.layers[layer_index]
    read = (index for index in layer.inputs if index != -1)
    inputs = dict.fromkeys(index for index in read if not graph.tensors[index].is_constant)
    return _cut(graph, (layer,), tuple(inputs), layer.outputs)


def up_to(graph: Graph, outputs: Sequence[int]) -> Cut:
    """The layers, and the graph inputs, that tensors ``outputs`` need; those tensors are its outputs.

    Raises UsageError when the graph has no such tensor or nothing gives it a value.
    """
    for index in outputs:
        if not 0 <= index < len(graph.tensors):
            raise UsageError(f"no tensor {index}: the graph has {len(graph.tensors)}, counted from 0")
    needed = set(outputs)
    layers: list[Layer] = []
    for layer in reversed(graph.layers):
        if needed.intersection(layer.outputs):
            needed.update(index for index in layer.inputs if index != -1)
            layers.append(layer)
    layers.reverse()
    valued = set(graph.inputs).union(*(layer.outputs for layer in layers))
    for index in outputs:
        if index not in valued and not graph.tensors[index].is_constant:
            raise UsageError(f"{graph.label(index)} is produced by no layer, so nothing leads up to it")
    inputs = tuple(index for index in graph.inputs if index in needed)
    return _cut(graph, layers, inputs, tuple(dict.fromkeys(outputs)))


def _cut(graph: Graph, layers: Sequence[Layer], inputs: Sequence[int], outputs: Sequence[int]) -> Cut:
    """Renumbers what the part uses, in the order it had."""
    used = {index for layer in layers for index in (*layer.inputs, *layer.outputs, *layer.intermediates)}
    old = sorted((used | set(inputs) | set(outputs)) - {-1})
    new = {index: position for position, index in enumerate(old)} | {-1: -1}
    tensors = tuple(replace(graph.tensors[index], index=new[index]) for index in old)
    signature = Signature(
        "serving_default",
        _named(tensors, (new[index] for index in inputs)),
        _named(tensors, (new[index] for index in outputs)),
    )
    layers = tuple(
        replace(
            layer,
            index=position,
            inputs=tuple(new[index] for index in layer.inputs),
            outputs=tuple(new[index] for index in layer.outputs),
            intermediates=tuple(new[index] for index in layer.intermediates),
        )
        for position, layer in enumerate(layers)
    )
    part = replace(
        graph,
        tensors=tensors,
        layers=layers,
        inputs=tuple(new[index] for index in inputs),
        outputs=tuple(new[index] for index in outputs),
        signatures=(signature,),
    )
    return Cut(part, dict(enumerate(old)))


def _named(tensors: Sequence[Tensor], indices: Iterable[int]) -> dict[str, int]:
    """Tensor names to indices; a name that is taken gets its index appended."""
    names: dict[str, int] = {}
    for index in indices:
        name = tensors[index].name
        names[name if name not in names else f"{name}:{index}"] = index
    return names
