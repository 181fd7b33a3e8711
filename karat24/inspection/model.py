"""A whole model file as plain data: its layers, what they cost, and which of them karat24 can judge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from karat24.export import graph_under, read_model
from karat24.export.outline import Edge, Outline, printable
from karat24.inspection.remarks import remarks
from karat24.inspection.tensors import attribute_data, tensor_data
from karat24.refimpl.cost import Cost, count
from karat24.refimpl.errors import KaratError, ModelError, RefusedByRuntime, UnsupportedOp, UsageError
from karat24.refimpl.graph import Format, Graph, LayerView
from karat24.refimpl.ops import check_supported
from karat24.refimpl.profiles import profile_for, profile_named


def describe_file(
    path: Path, profile: str | None = None, subgraph: int | str | None = None
) -> dict[str, Any]:
    """What the file holds, as :func:`describe_graph` says it; a .tflite file of several subgraphs, none of
    them chosen, is ``{"format", "subgraphs": [...]}``.

    A file that no graph can be made of is listed without being checked, under ``outline`` the reason why.
    Raises UsageError for a file that is not there, a subgraph that the file lacks or a profile of another
    format, and ModelError for a file that is not a model.
    """
    if not path.is_file():
        raise UsageError(f"{path}: {'is a directory' if path.is_dir() else 'no such file'}")
    if path.suffix.lower() == ".onnx":
        return _describe_onnx(path, profile)
    if path.suffix.lower() != ".tflite":
        raise UsageError(f"{path}: not a model file; name a .tflite or .onnx file")
    from karat24.export.tflite import tflite_subgraphs

    known = tflite_subgraphs(path)
    if subgraph is None and len(known) > 1:
        described = []
        for graph in known:
            content = _describe_tflite(path, profile, graph.number)
            about = {"signatures": list(graph.signatures), "callers": [str(call) for call in graph.callers]}
            described.append({"subgraph": graph.number, "name": printable(graph.name), **content, **about})
        return {"format": "tflite", "subgraphs": described}
    chosen = [graph.number for graph in known if subgraph is None or graph.called(subgraph)]
    if not chosen:
        names = ", ".join(f"{graph.number} {list(graph.signatures)}" for graph in known)
        raise UsageError(f"{path}: no subgraph {subgraph!r}; the file has {names}")
    return _describe_tflite(path, profile, chosen[0])


def _describe_tflite(path: Path, profile: str | None, number: int) -> dict[str, Any]:
    from karat24.export.tflite import read_tflite
    from karat24.export.tflite.outline import outline_tflite

    _require_profile(profile, "tflite")
    try:
        graph = read_tflite(path, number)
    except ModelError as error:
        return _outlined(lambda: outline_tflite(path, number), error)
    return describe_graph(graph, profile)


def _describe_onnx(path: Path, profile: str | None) -> dict[str, Any]:
    from karat24.export.onnx.outline import outline_onnx

    _require_profile(profile, "onnx")
    try:
        graph = read_model(path)
    except ModelError as error:
        return _outlined(lambda: outline_onnx(path), error)
    if profile is None:
        return describe_graph(graph)
    try:
        lowered = graph_under(graph, profile_named(profile))
    except UnsupportedOp as error:
        content = describe_graph(graph, profile)
        content["problems"].append(str(error))
        return content
    return describe_graph(lowered, profile)


def _outlined(outline: Callable[[], Outline], error: ModelError) -> dict[str, Any]:
    """The file's list where it can be followed; else raises ``error``, which is why there is no graph."""
    try:
        listed = outline()
    except ModelError:
        raise error from None
    return describe_outline(listed, str(error))


def _require_profile(profile: str | None, format: Format) -> None:
    """Raises UsageError for a profile that describes another format's runtimes."""
    if profile is not None and profile_named(profile).format != format:
        profile_for(Graph((), (), (), (), format=format), profile)


def describe_graph(graph: Graph, profile: str | None = None) -> dict[str, Any]:
    """The graph: inputs, outputs, layers, totals, remarks, and problems, which are what karat24 lacks, what
    the runtime of ``profile`` refuses and what is malformed."""
    chosen = profile_for(graph, profile) if profile is not None else None
    cost = _cost(graph)
    layers, problems = [], []
    for view in graph.views():
        entry = _layer(view, cost.layers[view.layer.index].macs if cost is not None else None)
        try:
            check_supported(view)
            if chosen is not None:
                entry["rule"] = str(chosen.rule(view))
        except KaratError as error:
            entry["problem"] = {"kind": _kind(error), "reason": str(error)}
            entry["input_tensors"] = [tensor_data(tensor) for tensor in view.inputs if tensor is not None]
            problems.append(f"{view}: {error}" if str(view) not in str(error) else str(error))
        layers.append(entry)
    return {
        "format": graph.format,
        "description": graph.description,
        "signatures": [signature.key for signature in graph.signatures],
        "inputs": [tensor_data(graph.tensors[index]) for index in graph.inputs],
        "outputs": [tensor_data(graph.tensors[index]) for index in graph.outputs],
        "layers": layers,
        "parameters": cost.parameters if cost is not None else None,
        "macs": cost.macs if cost is not None else None,
        "remarks": [remark.data() for remark in remarks(graph)],
        "edgetpu": _edgetpu(graph, problems),
        "problems": problems,
    }


def _edgetpu(graph: Graph, problems: list[str]) -> dict[str, Any] | None:
    """What a model compiled for the Edge TPU says of itself; a package that cannot be read is a problem."""
    from karat24.export.edgetpu.describe import describe_graph as describe_compiled

    try:
        return describe_compiled(graph)
    except KaratError as error:
        problems.append(str(error))
        return None


def _kind(error: KaratError) -> str:
    if isinstance(error, RefusedByRuntime):
        return "refused by the runtime"
    return "karat24 lacks it" if isinstance(error, UnsupportedOp) else "malformed"


def _layer(view: LayerView, macs: int | None) -> dict[str, Any]:
    return {
        "layer": view.layer.index,
        "op": view.op,
        "version": view.layer.version,
        "attributes": attribute_data(view.layer),
        "inputs": list(view.layer.inputs),
        "outputs": [tensor_data(tensor) for tensor in view.outputs],
        "macs": macs,
    }


def _cost(graph: Graph) -> Cost | None:
    """The graph's cost; None where a malformed layer with a filter cannot be counted."""
    try:
        return count(graph)
    except (ModelError, IndexError):
        return None


def describe_outline(outline: Outline, reason: str) -> dict[str, Any]:
    """A file's list of operations, in the form :func:`describe_graph` gives; ``reason`` says why there is no
    graph."""
    return {
        "format": outline.format,
        "description": outline.description,
        "outline": reason,
        "inputs": [_edge(edge) for edge in outline.inputs],
        "outputs": [_edge(edge) for edge in outline.outputs],
        "layers": [
            {
                "layer": operation.index,
                "op": operation.op,
                "version": operation.version,
                "attributes": dict(operation.attributes),
                "inputs": [edge.name for edge in operation.inputs],
                "input_tensors": [_edge(edge) for edge in operation.inputs],
                "outputs": [_edge(edge) for edge in operation.outputs],
                "macs": None,
            }
            for operation in outline.operations
        ],
        "parameters": None,
        "macs": None,
        "remarks": [],
        "problems": [reason],
    }


def _edge(edge: Edge) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": edge.name, "dtype": edge.dtype or "type not stated"}
    entry["shape"] = None if edge.shape is None else list(edge.shape)
    return entry | ({"bytes": edge.stored} if edge.stored else {})
