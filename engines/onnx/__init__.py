"""ONNX Runtime sessions and the cache of exported graphs."""
