"""Model files in and out: formats, quantization, cutting."""

from __future__ import annotations

from pathlib import Path

from refimpl.errors import UsageError
from refimpl.graph import Graph
from refimpl.profiles import Profile


def read_model(path: str | Path) -> Graph:
    """The graph in a model file, whose suffix says which format it has.

    Raises UsageError for a suffix nobody reads, and what the format's reader raises.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".tflite":
        from export.tflite import read_tflite

        return read_tflite(path)
    if suffix == ".onnx":
        from export.onnx import read_onnx

        return read_onnx(path)
    raise UsageError(f"{path}: not a model file this reads; give a .tflite or .onnx file")


def graph_under(graph: Graph, profile: Profile) -> Graph:
    """The layers a runtime of this profile runs: a QDQ graph's integer layers where it fuses them.

    For ONNX Runtime, those of a default session."""
    if graph.format == "onnx" and profile.fuses_qdq:
        from export.onnx import lower_qdq

        return lower_qdq(graph, profile.int8_allowed)
    return graph
