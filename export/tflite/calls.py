"""Layers of a .tflite file that enter other graphs of it: IF, WHILE, CALL_ONCE."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from karat24.export.tflite.flatbuffer import Table
from karat24.export.tflite.read_operator import code_of
from karat24.export.tflite.schema import OPTIONS_NAMES, ModelField, OperatorField, SubGraphField

ENTERS: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        "CALL_ONCE": ("CallOnceOptions", ("once, to initialize",)),
        "IF": ("IfOptions", ("if true", "if false")),
        "WHILE": ("WhileOptions", ("as its condition", "as its body")),
    }
)
"""Op to its options table and, for each field, the purpose of the graph whose number the field holds."""


class Call(NamedTuple):
    """Layer ``layer`` of subgraph ``caller`` enters subgraph ``entered``; ``purpose`` says what for."""

    entered: int
    caller: int
    layer: int
    op: str
    purpose: str

    def __str__(self) -> str:
        return f"layer {self.layer} ({self.op}) of subgraph {self.caller} {self.purpose}"


def calls(model: Table) -> Iterator[Call]:
    """All calls of a file, graph by graph. Raises ModelError for broken tables."""
    codes = [code_of(table) for table in model.tables(ModelField.OPERATOR_CODES)]
    for caller, graph in enumerate(model.tables(ModelField.SUBGRAPHS)):
        for layer, operator in enumerate(graph.tables(SubGraphField.OPERATORS)):
            number = operator.integer(OperatorField.OPCODE_INDEX, "I")
            op = codes[number].op if number < len(codes) else ""
            if op not in ENTERS:
                continue
            kind, purposes = ENTERS[op]
            stored = OPTIONS_NAMES.get(operator.integer(OperatorField.BUILTIN_OPTIONS_TYPE, "B"))
            options = operator.table(OperatorField.BUILTIN_OPTIONS) if stored == kind else None
            for slot, purpose in enumerate(purposes):
                entered = 0 if options is None else options.integer(slot)
                yield Call(entered, caller, layer, op, purpose)
