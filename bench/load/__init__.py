"""The load generator: streams that arrive at random, over any surface, judged by a simulated listener."""
