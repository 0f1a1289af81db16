"""The load generator: streams that arrive at random, over any surface, heard as a listener would hear them."""
