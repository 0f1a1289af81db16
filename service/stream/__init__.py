"""A stream's state: text in, segments, events out."""
