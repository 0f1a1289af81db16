"""T3's attention from speech to text: which heads align, and what they look at for a running segment."""
