"""The load generator: streams that arrive at random, over any protocol, played in real time."""
