"""Text to text tokens: what of it is spoken, its normalisation, the tokenizer, and how long its speech may be."""
