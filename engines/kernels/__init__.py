"""The vocoder's residual blocks on a CPU, with two to three times fewer products than their definition has."""
