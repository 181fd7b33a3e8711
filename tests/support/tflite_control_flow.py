"""A .tflite file whose layers enter other graphs of the file: IF and WHILE between two RELU layers."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from karat24.export.tflite import write_tflite
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Graph, Quantization
from tests.support.tflite_edits import broken

SHAPE, SCALE = (1, 8), Quantization.per_tensor(0.1, 3)


def branching() -> bytes:
    """RELU, then IF between RELU6 and RELU_N1_TO_1, then RELU; the graph is called ``main``."""
    builder = GraphBuilder()
    condition = builder.input("condition", (), "bool")
    first = _unary(builder, "RELU", builder.input("x", SHAPE, "int8", SCALE), "first")
    chosen = builder.layer("CUSTOM:IF", [condition, first], [builder.tensor("chosen", SHAPE, "int8", SCALE)])
    last = _unary(builder, "RELU", chosen, "last")
    options = schema.IfOptionsT()
    options.thenSubgraphIndex, options.elseSubgraphIndex = 1, 2
    return _with(builder.build([last]), "IF", options, [_alone("RELU6"), _alone("RELU_N1_TO_1")])


def looping() -> bytes:
    """RELU, then WHILE that adds a vector to it three times, then RELU."""
    builder = GraphBuilder()
    count = builder.input("count", (1,), "int32")
    first = _unary(builder, "RELU", builder.input("x", SHAPE, "int8", SCALE), "first")
    ends = [builder.tensor("counted", (1,), "int32"), builder.tensor("summed", SHAPE, "int8", SCALE)]
    builder.layer("CUSTOM:WHILE", [count, first], ends)
    last = _unary(builder, "RELU", ends[1], "last")
    options = schema.WhileOptionsT()
    options.condSubgraphIndex, options.bodySubgraphIndex = 1, 2
    return _with(builder.build([ends[0], last]), "WHILE", options, [_condition(), _body()])


def _unary(builder: GraphBuilder, op: str, source: int, name: str) -> int:
    version = 1 if op == "RELU_N1_TO_1" else 2
    return builder.layer(op, [source], [builder.tensor(name, SHAPE, "int8", SCALE)], version=version)


def _alone(op: str) -> Graph:
    builder = GraphBuilder(op.lower())
    return builder.build([_unary(builder, op, builder.input("x", SHAPE, "int8", SCALE), "y")])


def _condition() -> Graph:
    builder = GraphBuilder("condition")
    count = builder.input("count", (1,), "int32")
    builder.input("x", SHAPE, "int8", SCALE)
    bound = builder.constant("bound", np.array([3], np.int32))
    return builder.build([builder.layer("LESS", [count, bound], [builder.tensor("less", (1,), "bool")])])


def _body() -> Graph:
    builder = GraphBuilder("body")
    count, x = builder.input("count", (1,), "int32"), builder.input("x", SHAPE, "int8", SCALE)
    one = builder.constant("one", np.array([1], np.int32))
    more = builder.layer("ADD", [count, one], [builder.tensor("more", (1,), "int32")])
    step = builder.constant("step", np.arange(8, dtype=np.int8).reshape(SHAPE), SCALE)
    added = builder.layer("ADD", [x, step], [builder.tensor("added", SHAPE, "int8", SCALE)], version=2)
    return builder.build([more, added])


def _with(main: Graph, op: str, options: Any, graphs: list[Graph]) -> bytes:
    """The graph with its custom layer called ``op``, and further graphs behind it."""

    def change(model: Any) -> None:
        (code,) = (position for position, known in enumerate(model.operatorCodes) if known.customCode)
        model.operatorCodes[code].customCode = None
        number = getattr(schema.BuiltinOperator, op)
        model.operatorCodes[code].builtinCode = model.operatorCodes[code].deprecatedBuiltinCode = number
        (layer,) = (known for known in model.subgraphs[0].operators if known.opcodeIndex == code)
        layer.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
        layer.builtinOptions = options
        for graph in graphs:
            _append(model, schema.ModelT.InitFromPackedBuf(write_tflite(graph), 0))

    return broken(change, main)


def _append(model: Any, other: Any) -> None:
    """The only graph of another file, with its codes and buffers renumbered behind this one's."""
    codes, buffers = len(model.operatorCodes), len(model.buffers)
    graph = copy.deepcopy(other.subgraphs[0])
    for layer in graph.operators:
        layer.opcodeIndex += codes
    for tensor in graph.tensors:
        tensor.buffer = tensor.buffer + buffers if tensor.buffer else 0
    model.operatorCodes += other.operatorCodes
    model.buffers += other.buffers
    model.subgraphs.append(graph)
