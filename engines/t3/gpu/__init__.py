"""T3 on a GPU without vLLM: a cache of fixed addresses, and every step one captured graph."""
