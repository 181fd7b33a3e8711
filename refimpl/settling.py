"""Shapes, and values of shape tensors, that a TensorFlow Lite runtime settles before it runs anything.

The shapes that a file stores with the outputs of its layers are a converter's notes: every runtime of the
family computes them anew when it allocates tensors, from the shapes of the inputs and from constants. Where
the notes are out of date, or an input is given another size than the file was exported with, the computed
shape counts. The values of SHAPE and of integer layers behind it are settled with the shapes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from karat24.refimpl.errors import ModelError, UsageError, WrongShape
from karat24.refimpl.graph import DTYPES, Array, Graph, LayerView, Tensor
from karat24.refimpl.ops import OPS, check_supported
from karat24.refimpl.profiles.rules import EXACT

FOLDED = frozenset(
    {
        "BROADCAST_TO", "CAST", "CONCATENATION", "EXPAND_DIMS", "FILL", "FLOOR_DIV", "FLOOR_MOD", "GATHER",
        "MAXIMUM", "MINIMUM", "PACK", "RANK", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "RESHAPE", "SHAPE",
        "SLICE", "SPLIT", "SQUEEZE", "STRIDED_SLICE", "SUM", "TILE", "TRANSPOSE", "UNPACK",
    }
)  # fmt: skip
"""Ops on int32 and int64 whose values are folded, where all they read is known."""

MAX_FOLDED = 64
"""A tensor of more elements is not a list of sizes, and is left to the run."""

INTEGERS = ("int32", "int64")


def settled(graph: Graph) -> Graph:
    """The graph with the shapes its layers compute, and with ``Tensor.folded`` where values follow from them.

    A layer that the oracle lacks, or that is malformed in another way, keeps what the file says.
    """
    tensors = list(graph.tensors)
    for layer in graph.layers:
        view = _shaped(_view(tensors, graph, layer.index))
        for tensor in _folded(view):
            tensors[tensor.index] = tensor
    if all(new is old for new, old in zip(tensors, graph.tensors, strict=True)):
        return graph
    return replace(graph, tensors=tuple(tensors))


def resized(graph: Graph, shapes: Mapping[int, tuple[int, ...]]) -> Graph:
    """The graph, settled, for inputs of other shapes: by tensor index, a size for each -1 of its signature.

    Raises UsageError where the file fixes a size that a shape changes.
    """
    tensors = list(graph.tensors)
    for index, shape in shapes.items():
        if not takes_shape(tensors[index], shape):
            raise UsageError(
                f"input {tensors[index].name!r} cannot have shape {shape}: the model says "
                f"{tensors[index].shape_signature or tensors[index].shape}"
            )
        tensors[index] = replace(tensors[index], shape=shape)
    return settled(replace(graph, tensors=tuple(tensors)))


def takes_shape(tensor: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether ``shape`` differs from the tensor's signature, or its shape without one, at most where that
    says -1."""
    signature = tensor.shape_signature or tensor.shape
    return len(shape) == len(signature) and all(
        size >= 1 if known == -1 else size == known for size, known in zip(shape, signature, strict=True)
    )


def _view(tensors: list[Tensor], graph: Graph, index: int) -> LayerView:
    layer = graph.layers[index]
    return LayerView(
        layer,
        tuple(None if i == -1 else tensors[i] for i in layer.inputs),
        tuple(tensors[i] for i in layer.outputs),
        tuple(None if i == -1 else tensors[i] for i in layer.intermediates),
    )


def _shaped(view: LayerView) -> LayerView:
    """The layer with outputs of the shapes its check computes, one after the other."""
    outputs = [replace(t, folded=None) if t.folded is not None else t for t in view.outputs]
    for _ in outputs:
        view = replace(view, outputs=tuple(outputs))
        try:
            check_supported(view)
        except WrongShape as error:
            place = next((i for i, tensor in enumerate(outputs) if tensor.index == error.tensor), None)
            if place is None or math.prod(error.computed) == 0:
                break
            try:
                outputs[place] = replace(outputs[place], shape=error.computed)
            except ModelError:
                break
        except ModelError:
            break
        else:
            break
    return replace(view, outputs=tuple(outputs))


def _folded(view: LayerView) -> tuple[Tensor, ...]:
    """The layer's outputs, with their values where they are known."""
    small = all(t.dtype in INTEGERS and math.prod(t.shape) <= MAX_FOLDED for t in view.outputs)
    if view.op not in FOLDED or not small:
        return view.outputs
    values: list[Array | None] = []
    for tensor in view.inputs:
        value = None if tensor is None else tensor.known
        if value is None and tensor is not None:
            if view.op != "SHAPE":  # which reads no values
                return view.outputs
            value = np.empty(0, DTYPES.get(tensor.dtype, np.dtype(np.uint8)))
        values.append(value)
    try:
        check_supported(view)
        results = OPS[view.op].spec(view, values, EXACT).outputs
    except ModelError:
        return view.outputs
    return tuple(
        replace(tensor, folded=value) if value.shape == tensor.shape else tensor
        for tensor, value in zip(view.outputs, results, strict=True)
    )
