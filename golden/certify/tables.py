"""A layer of one or two bytes as models that see every value, or every pair of values, there is.

A model holds one or more copies of the layer, each with inputs of its own: so even the elements behind the
last whole block, of which a tensor has few, are reached in few runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from karat24.export.cut import single_layer
from karat24.refimpl.graph import DTYPES, QUANTIZED_RANGE, Array, Graph, LayerView, Tensor
from karat24.refimpl.profiles.tflite.broadcast import inner_loop
from karat24.refimpl.staircase.tables import PAIRS


@dataclass(frozen=True, eq=False)
class TableModel:
    """Copies of a layer. ``feeds`` holds the operands of the first copy, then of the second, and so on."""

    graph: Graph
    feeds: tuple[Array, ...]


def operands_of(view: LayerView) -> tuple[int, ...]:
    """Input positions of the layer's one or two operands."""
    return PAIRS.get(view.op, (0,))


def table_model(graph: Graph, layer: int, tail: int = 0) -> TableModel:
    """A model that sees the whole table: in whole blocks, or behind the last block if that has room for
    ``tail`` elements.

    The right one of two operands repeats from row to row, so that each row ends with a tail of its own;
    where the layer's right operand has one value, it has one value a row.
    """
    cut = single_layer(graph, layer).graph
    view = cut.view(0)
    every = np.arange(256)
    pieces = _in_pieces(every, tail) if tail else every[np.newaxis]
    if len(operands_of(view)) == 1:
        return _model(cut, [(piece,) for piece in pieces])
    column = every[:, np.newaxis]
    single = _single_value(view)
    if single is None and not tail:
        return _model(cut, [(np.repeat(column, 256, axis=1), np.repeat(every[np.newaxis], 256, axis=0))])
    if single is None:
        return _model(cut, [(np.repeat(column, tail, axis=1), piece[np.newaxis]) for piece in pieces])
    rows = [np.repeat(piece[np.newaxis], 256, axis=0) for piece in pieces]
    return _model(cut, [(row, column) if single == 1 else (column, row) for row in rows])


def _single_value(view: LayerView) -> int | None:
    """Which operand is a single value for a whole inner loop, which is a loop of its own in some runtimes."""
    shapes = [view.input(position).shape for position in operands_of(view)]
    if view.op.isupper():
        if inner_loop(view).kind != "scalar":
            return None
        last = [shape[-1] if shape else 1 for shape in shapes]
        return int(np.argmin(last))
    sizes = [math.prod(shape) for shape in shapes]
    return int(np.argmin(sizes)) if min(sizes) == 1 < max(sizes) else None


def _in_pieces(values: Array, size: int) -> Array:
    """Rows of ``size`` values; the last one is filled up with the last value."""
    return np.pad(values, (0, -values.size % size), mode="edge").reshape(-1, size)


def _model(cut: Graph, copies: Sequence[tuple[Array, ...]]) -> TableModel:
    """One copy of the cut's layer for each set of operands, counted from 0 for the least value."""
    view = cut.view(0)
    operands = operands_of(view)
    tensors, layers = list(cut.tensors), []
    fed: list[int] = []
    feeds: list[Array] = []
    outputs: list[int] = []
    for copy, values in enumerate(copies):
        inputs = list(view.layer.inputs)
        rank = max(values[0].ndim, len(view.output().shape))
        for position, value in zip(operands, values, strict=True):
            tensor = view.input(position)
            stored = (value + QUANTIZED_RANGE[tensor.dtype][0]).astype(DTYPES[tensor.dtype])
            stored = stored.reshape((1,) * (rank - stored.ndim) + stored.shape)
            inputs[position] = _added(tensors, tensor, f"operand{position}_{copy}", stored.shape)
            fed.append(inputs[position])
            feeds.append(stored)
        shape = np.broadcast_shapes(*(feed.shape for feed in feeds[-len(operands) :]))
        outputs.append(_added(tensors, view.output(), f"output{copy}", shape))
        layers.append(replace(view.layer, index=copy, inputs=tuple(inputs), outputs=(outputs[-1],)))
    graph = replace(
        cut, tensors=tuple(tensors), layers=tuple(layers), inputs=tuple(fed), outputs=tuple(outputs),
        signatures=(),
    )  # fmt: skip
    return TableModel(_without_unused(graph), tuple(feeds))


def _added(tensors: list[Tensor], like: Tensor, name: str, shape: Sequence[int]) -> int:
    index = len(tensors)
    tensors.append(replace(like, index=index, name=name, shape=tuple(shape), data=None, shape_signature=None))
    return index


def _without_unused(graph: Graph) -> Graph:
    """The graph without tensors that no layer reads or writes."""
    used = sorted({index for layer in graph.layers for index in (*layer.inputs, *layer.outputs)} - {-1})
    new = {index: position for position, index in enumerate(used)} | {-1: -1}
    return replace(
        graph,
        tensors=tuple(replace(graph.tensors[index], index=new[index]) for index in used),
        layers=tuple(
            replace(
                layer,
                inputs=tuple(new[index] for index in layer.inputs),
                outputs=tuple(new[index] for index in layer.outputs),
            )
            for layer in graph.layers
        ),
        inputs=tuple(new[index] for index in graph.inputs),
        outputs=tuple(new[index] for index in graph.outputs),
    )
