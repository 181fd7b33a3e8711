"""The forms an .onnx file of a model can take, and which of them a graph can be written in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from karat24.refimpl.errors import UsageError

if TYPE_CHECKING:
    from karat24.export.onnx import Flavour
    from karat24.refimpl.graph import Graph

QUANTIZATIONS = ("QuantizeLinear", "DequantizeLinear")

FLOAT = "--flavour is a form of quantized models, and this one is float; leave it out"


def onnx_content(graph: Graph, flavour: Flavour | None) -> tuple[bytes, Graph]:
    """The bytes of an .onnx file of the graph, and the graph that it holds.

    Raises UsageError where the graph cannot be written in ``flavour``.
    """
    from karat24.export import write_model
    from karat24.export.onnx import to_onnx

    if graph.format == "onnx":
        written = _reshaped(graph, flavour)
        return write_model(written), written
    if any(tensor.dtype in ("int8", "uint8") and tensor.quantization for tensor in graph.tensors):
        written = to_onnx(graph, flavour or "qdq")
        return write_model(written), graph
    if flavour is not None:
        raise UsageError(FLOAT)
    return write_model(graph, "onnx"), graph


def _reshaped(graph: Graph, flavour: Flavour | None) -> Graph:
    """A graph in ONNX layout, brought into another form where a flavour asks for that."""
    from karat24.export.onnx import lower_qdq

    if flavour == "tensorrt":
        raise UsageError(
            "--flavour tensorrt: an .onnx model keeps its zero points; give the .tflite model it was made of"
        )
    integer = sorted({layer.op for layer in graph.layers if _is_integer(layer.op)})
    if flavour == "qdq" and integer:
        raise UsageError(
            f"--flavour qdq: karat24 does not turn integer ops ({', '.join(integer)}) into QDQ; "
            "leave --flavour out, give the .tflite model it was made of, or export the float model with QDQ "
            "nodes"
        )
    if flavour is not None and not integer and not any(layer.op in QUANTIZATIONS for layer in graph.layers):
        raise UsageError(FLOAT)
    if flavour != "qoperator":
        return graph
    lowered = lower_qdq(graph, int8_allowed=True)
    if any(layer.op in QUANTIZATIONS for layer in graph.layers) and not any(
        _is_integer(layer.op) for layer in lowered.layers
    ):
        raise UsageError(
            "none of the model's layers lies between quantizations as ONNX Runtime's integer ops need it; "
            "leave --flavour out to write it as it is"
        )
    return lowered


def float_layers(graph: Graph) -> list[str]:
    """Ops with their outputs' names that compute in floating point, quantizations left out."""
    return [
        f"{view.op} ({view.outputs[0].name})"
        for view in graph.views()
        if view.op not in QUANTIZATIONS and view.outputs and view.outputs[0].dtype.startswith("float")
    ]


def _is_integer(op: str) -> bool:
    """True for ONNX's and ONNX Runtime's ops on quantized values (QLinearConv, com.microsoft:QGemm)."""
    name = op.rpartition(":")[2]
    return name.startswith(("QLinear", "QGemm")) or name.endswith("Integer")
