"""From a QDQ graph to the integer graph that ONNX Runtime makes of it."""
