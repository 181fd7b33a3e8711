"""Writing a quantized TFLite-style graph as .onnx."""

from __future__ import annotations

from export.onnx.convert import Flavour, to_onnx
from export.onnx.write import write_onnx
from refimpl.graph import Graph


def write_quantized_onnx(graph: Graph, flavour: Flavour = "qdq") -> bytes:
    """The 8-bit graph as the bytes of an .onnx file in one of the flavours of :func:`to_onnx`, whose
    errors these are; checked, and the same bytes for equal graphs."""
    return write_onnx(to_onnx(graph, flavour))
