"""Writing .onnx files: float graphs, conversion of quantized ones, serialization."""
