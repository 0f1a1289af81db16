"""`make gpu-check`: what works on this GPU, and how fast; a rehearsal of the same steps on a CPU."""
