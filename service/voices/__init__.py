"""Stored voices: their ids, their files and the store."""
