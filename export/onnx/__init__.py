"""Reading and writing .onnx files."""

from export.onnx.float_graph import write_float_onnx
from export.onnx.lower import lower_qdq
from export.onnx.read import read_onnx
from export.onnx.write import write_onnx

__all__ = ["lower_qdq", "read_onnx", "write_float_onnx", "write_onnx"]
