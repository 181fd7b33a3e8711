"""Writing .onnx files: float graphs, conversion of quantized ones, serialization."""

from karat24.export.onnx.writing.convert import to_onnx, write_quantized_onnx
from karat24.export.onnx.writing.converter import FLAVOURS, Flavour
from karat24.export.onnx.writing.float_graph import write_float_onnx
from karat24.export.onnx.writing.half import half_precision
from karat24.export.onnx.writing.write import write_onnx

__all__ = [
    "FLAVOURS",
    "Flavour",
    "half_precision",
    "to_onnx",
    "write_float_onnx",
    "write_onnx",
    "write_quantized_onnx",
]
