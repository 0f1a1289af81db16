"""A stand-in for the one module of this package that vLLM's CPU attention imports; for tests and benchmarks only."""
