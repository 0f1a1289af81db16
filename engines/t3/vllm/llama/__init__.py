"""T3 of standard and Multilingual on vLLM: two lanes, with text and without, in one request."""
