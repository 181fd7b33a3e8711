"""Reading an operator of a .tflite file: the op's name, its version and its options by name."""

from __future__ import annotations

import math
from typing import NamedTuple

from karat24.export.tflite.flatbuffer import Table
from karat24.export.tflite.ops import BUILTINS, Option
from karat24.export.tflite.schema import (
    BUILTIN_NAMES,
    CUSTOM,
    OPTIONS_NAMES,
    UNKNOWN,
    OperatorCodeField,
    OperatorField,
)
from karat24.refimpl.errors import ModelError
from karat24.refimpl.graph import UNLISTED, AttributeValue


class Code(NamedTuple):
    """An op and its version, as a file lists them once for all its operators."""

    op: str
    version: int


def code_of(table: Table) -> Code:
    """The op's name. Codes up to 127 are in an 8-bit field, the only one of older files; larger codes are in
    a later field."""
    number = max(
        table.integer(OperatorCodeField.DEPRECATED_BUILTIN_CODE, "b"),
        table.integer(OperatorCodeField.BUILTIN_CODE),
    )
    if number < 0:
        raise ModelError(f"operator code {number}; codes count from 0")
    name = BUILTIN_NAMES.get(number, f"{UNKNOWN}{number}")
    version = table.integer(OperatorCodeField.VERSION, default=1)
    if version < 1:
        raise ModelError(f"version {version} of op {name}; versions count from 1")
    if name == "CUSTOM":
        custom = table.text(OperatorCodeField.CUSTOM_CODE)
        if not custom.isprintable():
            raise ModelError(f"a custom op is called {custom!r}, which cannot be printed")
        name = CUSTOM + custom
    return Code(name, version)


def options_of(operator: Table, op: str, where: str) -> dict[str, AttributeValue]:
    """The options of a builtin op, with the schema's defaults; those of an op without a line in
    ``export/tflite/ops.py`` are left out. Positions that the line does not list are under ``UNLISTED``."""
    line = BUILTINS.get(op)
    if line is None:
        return {}
    number = operator.integer(OperatorField.BUILTIN_OPTIONS_TYPE, "B")
    kind = OPTIONS_NAMES.get(number, f"number {number}")
    if kind not in ("NONE", line.options):
        raise ModelError(f"{where} has options of type {kind}, not {line.options or 'NONE'}")
    table = None if kind == "NONE" else operator.table(OperatorField.BUILTIN_OPTIONS)
    attributes: dict[str, AttributeValue] = {}
    if table is not None:
        unlisted = tuple(slot for slot in table.present() if slot >= len(line.fields))
        if unlisted:
            attributes[UNLISTED] = unlisted
    for slot, option in enumerate(line.fields):
        if option is not None:
            value = None if table is None else _option(table, slot, option, where)
            if value is not None:
                attributes[option.name] = value
            elif option.kind != "ints":
                attributes[option.name] = option.default
    return attributes


def _option(table: Table, slot: int, option: Option, where: str) -> AttributeValue | None:
    """The value the table stores, None when it stores none."""
    if slot not in table.present():
        return None
    match option.kind:
        case "ints":
            return table.integers(slot)
        case "int":
            return table.integer(slot)
        case "bool":
            return bool(table.integer(slot, "B"))
        case "float":
            value = float(table.scalar(slot, "f", 0.0))
            if not math.isfinite(value):
                raise ModelError(f"{where}: option {option.name} is {value}")
            return value
    number = table.integer(slot, "b")
    if number not in option.names:
        raise ModelError(
            f"{where}: option {option.name} is number {number}; the schema has {dict(option.names)}"
        )
    return option.names[number]
