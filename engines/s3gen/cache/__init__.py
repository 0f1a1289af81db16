"""State that cached decoding keeps between blocks: keys and values, convolution tails."""
