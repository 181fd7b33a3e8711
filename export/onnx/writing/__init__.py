"""Writing .onnx files: float graphs, conversion of quantized ones, serialization."""

from export.onnx.writing.convert import to_onnx, write_quantized_onnx
from export.onnx.writing.converter import FLAVOURS, Flavour
from export.onnx.writing.float_graph import write_float_onnx
from export.onnx.writing.half import half_precision
from export.onnx.writing.write import write_onnx

__all__ = [
    "FLAVOURS",
    "Flavour",
    "half_precision",
    "to_onnx",
    "write_float_onnx",
    "write_onnx",
    "write_quantized_onnx",
]
