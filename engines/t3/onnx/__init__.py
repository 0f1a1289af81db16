"""T3 as ONNX graphs."""
