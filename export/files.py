"""Model files by format: the one place that knows which reader and which writer serve which."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Format, Graph

if TYPE_CHECKING:
    from karat24.export.onnx import Flavour

FORMATS: tuple[Format, ...] = ("tflite", "onnx")


def file_format(model: str | Path | bytes) -> Format:
    """The format of a model file, by its suffix, or of its content, by the mark in bytes 4 to 8.

    Content without the mark of .tflite counts as ONNX, which has none. Raises UsageError for a suffix
    that no format has.
    """
    from karat24.export.tflite.schema import IDENTIFIER

    if isinstance(model, bytes):
        return "tflite" if model[4:8] == IDENTIFIER else "onnx"
    for format in FORMATS:
        if Path(model).suffix.lower() == f".{format}":
            return format
    raise UsageError(f"{model}: not a model file; name a .tflite or .onnx file")


def read_model(model: str | Path | bytes) -> Graph:
    """The graph in a model file, given as a path or as its content.

    Raises UsageError for a path with another suffix, and what the format's reader raises.
    """
    if file_format(model) == "tflite":
        from karat24.export.tflite import read_tflite

        return read_tflite(model)
    from karat24.export.onnx import read_onnx

    return read_onnx(model)


def write_model(graph: Graph, format: Format | None = None, flavour: Flavour = "qdq") -> bytes:
    """The graph as the content of a model file: of its own format unless ``format`` names one.

    A .tflite graph is converted where ONNX is asked for: a quantized one to ``flavour``, a float one as it
    is. Raises what the format's writer raises, among it ModelError for an ONNX graph as .tflite.
    """
    if (format or graph.format) == "tflite":
        from karat24.export.tflite import write_tflite

        return write_tflite(graph)
    from karat24.export.onnx import write_float_onnx, write_onnx, write_quantized_onnx

    if graph.format == "onnx":
        return write_onnx(graph)
    if any(tensor.dtype in ("int8", "uint8") and tensor.quantization for tensor in graph.tensors):
        return write_quantized_onnx(graph, flavour)
    return write_float_onnx(graph)
