"""The operations that a .tflite file lists, as far as its tables can be followed."""

from __future__ import annotations

from pathlib import Path

from karat24.export.outline import Edge, Operation, Outline, printable
from karat24.export.tflite.flatbuffer import Document, Table
from karat24.export.tflite.read_operator import code_of
from karat24.export.tflite.schema import (
    CUSTOM,
    IDENTIFIER,
    TYPE_NAMES,
    BufferField,
    ModelField,
    OperatorField,
    SubGraphField,
    TensorField,
)
from karat24.refimpl.errors import ModelError


def outline_tflite(path: Path, subgraph: int = 0) -> Outline:
    """The operations of one subgraph of the file. Raises ModelError for broken tables."""
    model = Document(path.read_bytes()).root(IDENTIFIER)
    subgraphs = model.tables(ModelField.SUBGRAPHS)
    if not 0 <= subgraph < len(subgraphs):
        raise ModelError(f"subgraph {subgraph}; the file has {len(subgraphs)}")
    graph = subgraphs[subgraph]
    sizes = [_stored(table) for table in model.tables(ModelField.BUFFERS)]
    edges = [_edge(table, sizes) for table in graph.tables(SubGraphField.TENSORS)]
    codes = [code_of(table) for table in model.tables(ModelField.OPERATOR_CODES)]
    operations = []
    for index, table in enumerate(graph.tables(SubGraphField.OPERATORS)):
        number = table.integer(OperatorField.OPCODE_INDEX, "I")
        op, version = codes[number] if number < len(codes) else (f"operator code {number}", 1)
        payload = table.vector(OperatorField.CUSTOM_OPTIONS, "u1")
        behind = table.integer(OperatorField.LARGE_CUSTOM_OPTIONS_SIZE, "Q")
        operations.append(
            Operation(
                index,
                op,
                version,
                _named(table, OperatorField.INPUTS, edges),
                _named(table, OperatorField.OUTPUTS, edges),
                {"custom_options": f"<{behind if payload is None else payload.size} bytes>"}
                if op.startswith(CUSTOM)
                else {},
            )
        )
    return Outline(
        "tflite",
        printable(model.text(ModelField.DESCRIPTION)),
        _named(graph, SubGraphField.INPUTS, edges),
        _named(graph, SubGraphField.OUTPUTS, edges),
        tuple(operations),
    )


def _stored(buffer: Table) -> int:
    values = buffer.vector(BufferField.DATA, "u1")
    return buffer.integer(BufferField.SIZE, "Q") if values is None else int(values.size)


def _edge(table: Table, sizes: list[int]) -> Edge:
    code, buffer = table.integer(TensorField.TYPE, "b"), table.integer(TensorField.BUFFER, "I")
    return Edge(
        printable(table.text(TensorField.NAME)),
        TYPE_NAMES.get(code, f"type {code}"),
        table.integers(TensorField.SHAPE_SIGNATURE) or table.integers(TensorField.SHAPE) or (),
        sizes[buffer] if buffer < len(sizes) else 0,
    )


def _named(table: Table, slot: int, edges: list[Edge]) -> tuple[Edge, ...]:
    """The tensors of a list of indices, without optional tensors that are left out."""
    return tuple(
        edges[index] if 0 <= index < len(edges) else Edge(f"tensor {index}, which the file lacks", "", None)
        for index in table.integers(slot) or ()
        if index != -1
    )
