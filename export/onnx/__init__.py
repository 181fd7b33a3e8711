"""Reading and writing .onnx files."""

from export.onnx.lower.lowering import lower_qdq
from export.onnx.read.reader import read_onnx
from export.onnx.write.convert import to_onnx, write_quantized_onnx
from export.onnx.write.converter import FLAVOURS, Flavour
from export.onnx.write.float_graph import write_float_onnx
from export.onnx.write.half import half_precision
from export.onnx.write.writer import write_onnx

__all__ = [
    "FLAVOURS",
    "Flavour",
    "half_precision",
    "lower_qdq",
    "read_onnx",
    "to_onnx",
    "write_float_onnx",
    "write_onnx",
    "write_quantized_onnx",
]
