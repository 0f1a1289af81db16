"""The state of a stream: text in, segments, events out."""
