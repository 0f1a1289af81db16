"""Compiled kernels for the CPU: dense layers of T3, transformer and residual blocks of S3Gen."""
