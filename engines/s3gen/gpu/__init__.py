"""CUDA streams, TensorRT engines and double buffering."""
