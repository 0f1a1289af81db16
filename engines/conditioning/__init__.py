"""Conditioning: reference audio to a Voice."""
