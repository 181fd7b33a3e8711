"""Reading and writing .onnx files."""

from karat24.export.onnx.lowering import lower_qdq
from karat24.export.onnx.reading import read_onnx
from karat24.export.onnx.remarks import Remark, remarks_on
from karat24.export.onnx.writing import (
    FLAVOURS,
    Flavour,
    half_precision,
    to_onnx,
    write_float_onnx,
    write_onnx,
    write_quantized_onnx,
)

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
