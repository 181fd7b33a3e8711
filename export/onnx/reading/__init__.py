"""Reading .onnx files: messages, constants, shapes and quantization parameters."""

from karat24.export.onnx.reading.read import read_onnx

__all__ = ["read_onnx"]
