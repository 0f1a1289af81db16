"""T3 on vLLM 0.9.2."""
