"""Model files in and out: formats, quantization, cutting."""

from __future__ import annotations

from karat24.export.files import read_model, write_model
from karat24.refimpl.graph import Graph
from karat24.refimpl.profiles import Profile

__all__ = ["graph_under", "read_model", "write_model"]


def graph_under(graph: Graph, profile: Profile) -> Graph:
    """The layers a runtime of this profile runs: a QDQ graph's integer layers where it fuses them.

    For ONNX Runtime, those of a default session."""
    if graph.format == "onnx" and profile.fuses_qdq:
        from karat24.export.onnx import lower_qdq

        return lower_qdq(graph, profile.int8_allowed)
    return graph
