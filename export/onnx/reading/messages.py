"""Checked content of an ONNX file's messages: names, declared types, attributes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from karat24.export.onnx.reading.constants import element_type
from karat24.export.onnx.schema import MAX_RANK, op_name
from karat24.refimpl.errors import ModelError, UnsupportedOp
from karat24.refimpl.graph import AttributeValue


def check_texts(message: Any) -> None:
    """Raises ModelError for a text that is not UTF-8, for which protobuf returns bytes."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for part in (value,) if hasattr(value, "ListFields") else value:
                check_texts(part)
        elif field.type == field.TYPE_STRING:
            for text in (value,) if isinstance(value, str | bytes) else value:
                if isinstance(text, bytes):
                    raise ModelError(f"{field.name} {text[:40]!r} is not UTF-8; the file is damaged")


class Declared(NamedTuple):
    """A file's declaration of an edge: sizes, -1 where symbolic (None: rank unknown), and element type."""

    sizes: tuple[int, ...] | None
    dtype: str | None


def where_of(position: int, node: Any) -> str:
    """``node 7 (Conv, 'name')``, for messages. Raises ModelError when the op's name is not valid."""
    for text in (node.op_type, node.domain):
        if not text.isprintable() or " " in text:
            raise ModelError(f"node {position} has the op {text!r}, which is not a valid name")
    if not node.op_type:
        raise ModelError(f"node {position} names no op")
    name = node.name or next(iter(node.output), "")
    return f"node {position} ({op_name(node.domain, node.op_type)}, {name!r})"


def outputs_of(node: Any, where: str) -> list[str]:
    """Names of what a node writes; optional outputs left out at the end are dropped."""
    names = list(node.output)
    while names and not names[-1]:
        names.pop()
    if not names:
        raise ModelError(f"{where} writes nothing")
    if "" in names:
        raise UnsupportedOp(f"{where} leaves out an output before the last one")
    if op_name(node.domain, node.op_type) == "Constant" and len(names) != 1:
        raise ModelError(f"{where} writes {len(names)} values")
    return names


def declared_of(value: Any) -> Declared:
    """A ValueInfoProto's shape and element type."""
    where = f"{value.name!r}"
    kind = value.type.WhichOneof("value")
    if kind is None:
        return Declared(None, None)
    if kind != "tensor_type":
        raise UnsupportedOp(f"{where} is a {kind}; only tensors are supported")
    tensor = value.type.tensor_type
    dtype = element_type(tensor.elem_type, where) if tensor.elem_type else None
    if not tensor.HasField("shape"):
        return Declared(None, dtype)
    sizes = []
    for size in tensor.shape.dim:
        fixed = size.WhichOneof("value") == "dim_value"
        if fixed and size.dim_value < -1:
            raise ModelError(f"{where} has the size {size.dim_value}")
        # Some writers write -1 where they mean a symbolic size.
        sizes.append(int(size.dim_value) if fixed else -1)
    if len(sizes) > MAX_RANK:
        raise ModelError(f"{where} has {len(sizes)} dimensions; at most {MAX_RANK} are supported")
    return Declared(tuple(sizes), dtype)


def attributes_of(node: Any, where: str) -> dict[str, AttributeValue]:
    """A node's attributes by name. Raises UnsupportedOp for graphs, tensors and lists of texts."""
    attributes: dict[str, AttributeValue] = {}
    for proto in node.attribute:
        if proto.name in attributes:
            raise ModelError(f"{where} has the attribute {proto.name!r} twice")
        attributes[proto.name] = _attribute(proto, where)
    return attributes


def _attribute(proto: Any, where: str) -> AttributeValue:
    kind = proto.AttributeType.Name(proto.type) if proto.type in ATTRIBUTE_TYPES else f"number {proto.type}"
    match kind:
        case "INT":
            return int(proto.i)
        case "INTS":
            return tuple(int(value) for value in proto.ints)
        case "FLOAT":
            return _finite(proto.f, proto, where)
        case "FLOATS":
            return tuple(_finite(value, proto, where) for value in proto.floats)
        case "STRING":
            return str(proto.s.decode())
        case "GRAPH" | "GRAPHS":
            raise UnsupportedOp(f"{where} holds a graph of its own; control flow is not supported")
    raise UnsupportedOp(f"{where}: attribute {proto.name!r} is of type {kind}, which is not supported")


ATTRIBUTE_TYPES = range(15)
"""The numbers of attribute types in the format."""


def _finite(value: float, proto: Any, where: str) -> float:
    if not math.isfinite(value):
        raise ModelError(f"{where}: attribute {proto.name} is {value}")
    return float(value)
