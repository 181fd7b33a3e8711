"""The nodes that an .onnx file lists, whatever its versions, element types and ops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from karat24.export.onnx.package import import_onnx
from karat24.export.onnx.schema import MAX_BYTES, op_name, type_label
from karat24.export.outline import Edge, Operation, Outline, printable
from karat24.refimpl.errors import ModelError


def outline_onnx(path: Path) -> Outline:
    """The nodes of the file's graph, functions and graphs inside nodes left out.

    Raises UsageError when the onnx package is missing and ModelError when the file is not an ONNX file.
    """
    onnx = import_onnx()
    from google.protobuf.message import DecodeError

    if path.stat().st_size > MAX_BYTES:
        raise ModelError(f"{path}: more than {MAX_BYTES} bytes")
    try:
        model = onnx.ModelProto.FromString(path.read_bytes())
    except DecodeError:
        raise ModelError(f"{path}: not an ONNX file, or a damaged one") from None
    graph = model.graph
    if not graph.node and not graph.output:
        raise ModelError(f"{path}: holds no graph; not an ONNX model, or a damaged one")
    edges = {value.name: _declared(value) for value in (*graph.value_info, *graph.input, *graph.output)}
    edges |= {proto.name: _constant(proto) for proto in graph.initializer}
    versions = {entry.domain: entry.version for entry in model.opset_import}
    stored = {proto.name for proto in graph.initializer}
    operations = tuple(
        Operation(
            index,
            printable(op_name(node.domain, node.op_type)),
            versions.get(node.domain, 0),
            _named(node.input, edges),
            _named(node.output, edges),
            {printable(attribute.name): _attribute(attribute) for attribute in node.attribute},
        )
        for index, node in enumerate(graph.node)
    )
    listed = ", ".join(f"{printable(domain) or 'ai.onnx'} {version}" for domain, version in versions.items())
    return Outline(
        "onnx",
        f"ONNX format version {model.ir_version}, operator sets {listed}",
        _named([value.name for value in graph.input if value.name not in stored], edges),
        _named([value.name for value in graph.output], edges),
        operations,
    )


def _named(names: Any, edges: dict[str, Edge]) -> tuple[Edge, ...]:
    return tuple(edges.get(name) or Edge(printable(name), "", None) for name in names if name)


def _declared(value: Any) -> Edge:
    kind = value.type.WhichOneof("value") or ""
    if kind != "tensor_type":
        return Edge(printable(value.name), kind.removesuffix("_type"), None)
    tensor = value.type.tensor_type
    sizes = None
    if tensor.HasField("shape"):
        sizes = tuple(
            int(size.dim_value) if size.WhichOneof("value") == "dim_value" else -1
            for size in tensor.shape.dim
        )
    return Edge(printable(value.name), type_label(tensor.elem_type) if tensor.elem_type else "", sizes)


def _constant(proto: Any) -> Edge:
    return Edge(
        printable(proto.name),
        type_label(proto.data_type),
        tuple(int(size) for size in proto.dims),
        len(proto.raw_data),
    )


def _attribute(proto: Any) -> str:
    """An attribute as text; a long one is described by its size."""
    kind = proto.AttributeType.Name(proto.type) if proto.type in proto.AttributeType.values() else ""
    match kind:
        case "INT":
            return str(proto.i)
        case "FLOAT":
            return f"{proto.f:g}"
        case "STRING":
            return printable(proto.s) if len(proto.s) <= 64 else f"<{len(proto.s)} bytes>"
        case "INTS":
            return printable(" ".join(map(str, proto.ints[:32])))
        case "FLOATS":
            return printable(" ".join(f"{value:g}" for value in proto.floats[:32]))
        case "TENSOR":
            return f"<{type_label(proto.t.data_type)} {'x'.join(map(str, proto.t.dims)) or 'scalar'}>"
        case "GRAPH":
            return f"<graph of {len(proto.g.node)} nodes>"
    return f"<{kind.lower() or 'unknown type'}>"
