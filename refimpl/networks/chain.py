"""Joining two graphs end to end into one."""

from __future__ import annotations

from collections.abc import Sequence

from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import QUANTIZED_RANGE, Graph, Tensor


def chain(first: Graph, second: Graph) -> Graph:
    """One graph computing ``second(first(x))``; outputs of ``first`` feed inputs of ``second`` in order.

    Both are float32, or both quantized; where a quantized edge has other parameters or another
    element type on its two sides, a QUANTIZE layer stands between. Inputs keep the names ``first``
    gives them and outputs the names ``second`` gives them; an inner name that is already taken is
    prefixed with its graph's name.

    Raises ModelError when the formats, the number of joined tensors, their shapes or their
    element types do not agree.
    """
    if first.format != "tflite" or second.format != "tflite":
        raise ModelError(f"cannot chain a {first.format} and a {second.format} graph: both must be tflite")
    if len(first.outputs) != len(second.inputs):
        raise ModelError(
            f"cannot chain: {first.name!r} has {len(first.outputs)} outputs, "
            f"{second.name!r} has {len(second.inputs)} inputs"
        )
    builder = GraphBuilder(
        f"{first.name}_{second.name}",
        description=f"{first.description or first.name}, then {second.description or second.name}",
    )
    public = {first.tensors[i].name for i in first.inputs} | {second.tensors[i].name for i in second.outputs}
    names = _Names(public)

    first_names = [
        tensor.name if tensor.index in first.inputs else names.inner(first, tensor)
        for tensor in first.tensors
    ]
    new_index = _copy_tensors(builder, first, first_names, {})
    _copy_layers(builder, first, new_index)

    joined: dict[int, int] = {}
    for out_index, in_index in zip(first.outputs, second.inputs, strict=True):
        produced, consumed = first.tensors[out_index], second.tensors[in_index]
        _check_edge(first, produced, second, consumed)
        joined[in_index] = new_index[out_index]
        if _parameters(produced) != _parameters(consumed):
            requantized = builder.tensor(
                names.inner(second, consumed), consumed.shape, consumed.dtype, consumed.quantization
            )
            joined[in_index] = builder.layer("QUANTIZE", (new_index[out_index],), (requantized,))

    second_names = [
        tensor.name if tensor.index in second.outputs else names.inner(second, tensor)
        for tensor in second.tensors
    ]
    new_index = _copy_tensors(builder, second, second_names, joined)
    _copy_layers(builder, second, new_index)
    return builder.build([new_index[index] for index in second.outputs])


class _Names:
    """Keeps the names of inner tensors apart from one another and from the public ones."""

    def __init__(self, public: set[str]) -> None:
        self._taken = set(public)

    def inner(self, graph: Graph, tensor: Tensor) -> str:
        name, number = tensor.name, 2
        if name in self._taken:
            name = f"{graph.name}/{tensor.name}"
        while name in self._taken:
            name, number = f"{graph.name}/{tensor.name}_{number}", number + 1
        self._taken.add(name)
        return name


def _copy_tensors(
    builder: GraphBuilder, graph: Graph, names: Sequence[str], already: dict[int, int]
) -> dict[int, int]:
    """Adds every tensor not ``already`` there; returns old index to new."""
    new_index = dict(already)
    for tensor, name in zip(graph.tensors, names, strict=True):
        if tensor.index in already:
            continue
        if tensor.data is not None:
            added = builder.constant(name, tensor.data, tensor.quantization)
        elif tensor.index in graph.inputs:
            added = builder.input(name, tensor.shape, tensor.dtype, tensor.quantization)
        else:
            added = builder.tensor(name, tensor.shape, tensor.dtype, tensor.quantization)
        new_index[tensor.index] = added
    return new_index


def _copy_layers(builder: GraphBuilder, graph: Graph, new_index: dict[int, int]) -> None:
    for layer in graph.layers:
        builder.layer(
            layer.op,
            [-1 if index == -1 else new_index[index] for index in layer.inputs],
            [new_index[index] for index in layer.outputs],
            layer.version,
            **layer.attributes,
        )


def _parameters(tensor: Tensor) -> tuple[object, ...]:
    return tensor.dtype, tensor.quantization


def _check_edge(first: Graph, produced: Tensor, second: Graph, consumed: Tensor) -> None:
    where = f"cannot chain: {first.name!r} gives {produced.name!r}, {second.name!r} takes {consumed.name!r}"
    if produced.shape != consumed.shape:
        raise ModelError(f"{where}: shapes {list(produced.shape)} and {list(consumed.shape)}")
    if _parameters(produced) == _parameters(consumed):
        return
    for tensor in (produced, consumed):
        if tensor.dtype not in QUANTIZED_RANGE or tensor.quantization is None:
            raise ModelError(
                f"{where}: {produced.dtype} and {consumed.dtype}, of which not both are quantized"
            )
