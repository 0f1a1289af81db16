"""Checkpoints: finding, opening and checking a model's files."""
