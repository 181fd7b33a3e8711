"""Reading .onnx files: messages, constants, shapes and quantization parameters."""
