"""Reading and writing .onnx files."""

from export.onnx.convert import FLAVOURS, Flavour, to_onnx
from export.onnx.float_graph import write_float_onnx
from export.onnx.half import half_precision
from export.onnx.lowering import lower_qdq
from export.onnx.read import read_onnx
from export.onnx.remarks import Remark, remarks_on
from export.onnx.write import write_onnx
from export.onnx.write_quantized import write_quantized_onnx

__all__ = [
    "FLAVOURS",
    "Flavour",
    "Remark",
    "half_precision",
    "lower_qdq",
    "read_onnx",
    "remarks_on",
    "to_onnx",
    "write_float_onnx",
    "write_onnx",
    "write_quantized_onnx",
]
