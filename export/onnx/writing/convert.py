"""From a quantized TFLite-style graph (NHWC) to a quantized ONNX graph (NCHW).

There are three flavours. ``qdq`` writes float ops between DequantizeLinear and QuantizeLinear, which runtimes
fuse as they see fit. ``qoperator`` writes ONNX Runtime's integer ops where they exist, and float ops as in
``qdq`` elsewhere. ``tensorrt`` writes the ``qdq`` that TensorRT's parser accepts, from a graph with zero
points of 0: float inputs, outputs and biases, no uint8.

A quantized tensor keeps its name, so that edges of both files match; new tensors are called ``<name>/…``.
Four-dimensional activations are transposed to NCHW, filters from OHWI to OIHW.
"""

from __future__ import annotations

from karat24.export.onnx.writing.convert_layers import CONVERTERS
from karat24.export.onnx.writing.converter import FLAVOURS, Converter, Flavour
from karat24.export.onnx.writing.write import write_onnx
from karat24.refimpl.errors import ModelError, UnsupportedOp, UsageError
from karat24.refimpl.graph import Graph


def to_onnx(graph: Graph, flavour: Flavour = "qdq") -> Graph:
    """The 8-bit graph in ONNX layout and one of the three flavours.

    Raises UnsupportedOp, which names the layer, for an op or a variant of an op without a line in
    ``convert_layers.py``; ModelError for a graph in ONNX layout, and for ``tensorrt`` when
    a zero point is not 0 or a tensor is uint8; UsageError for an unknown flavour.
    """
    if flavour not in FLAVOURS:
        raise UsageError(f"no ONNX flavour {flavour!r}; there are {', '.join(FLAVOURS)}")
    if graph.format != "tflite":
        raise ModelError(f"graph {graph.name!r} is {graph.format} already; only TFLite-style graphs convert")
    for tensor in graph.tensors:
        if tensor.is_opaque:
            raise UnsupportedOp(
                f"{graph.label(tensor.index)} is of element type {tensor.dtype}, which has no quantized ONNX"
            )
    if flavour == "tensorrt":
        _check_symmetric(graph)
    converter = Converter(graph, flavour)
    for view in graph.views():
        convert = CONVERTERS.get(view.op)
        if convert is None:
            raise UnsupportedOp(
                f"{view}: no quantized ONNX for {view.op}; add it to export/onnx/writing/convert_layers.py"
            )
        convert(converter, view)
    return converter.build()


def _check_symmetric(graph: Graph) -> None:
    for tensor in graph.tensors:
        symmetric = tensor.quantization is None or not any(tensor.quantization.zero_point)
        if tensor.dtype == "uint8":
            raise ModelError(
                f"{graph.label(tensor.index)} is uint8, which TensorRT does not take; "
                "quantize the float network with the scheme 'int8-symmetric'"
            )
        if not symmetric:
            raise ModelError(
                f"{graph.label(tensor.index)} has a zero point other than 0, which "
                "TensorRT does not take; quantize the float network with the scheme 'int8-symmetric'"
            )


def write_quantized_onnx(graph: Graph, flavour: Flavour = "qdq") -> bytes:
    """The 8-bit graph as the bytes of a checked .onnx file in one of the flavours of :func:`to_onnx`.

    Equal graphs give equal bytes. Raises what :func:`to_onnx` and ``write_onnx`` raise.
    """
    return write_onnx(to_onnx(graph, flavour))
