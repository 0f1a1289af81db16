"""S3Gen's nets as checked ONNX graphs."""
