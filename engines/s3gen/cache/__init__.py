"""The state that cached decoding keeps between blocks: keys and values, and convolution states."""
