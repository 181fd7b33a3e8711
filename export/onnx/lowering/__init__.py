"""From a QDQ graph to the integer graph ONNX Runtime's optimizer makes of it."""

from karat24.export.onnx.lowering.lower import lower_qdq

__all__ = ["lower_qdq"]
