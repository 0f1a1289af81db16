"""Admission, authentication and TLS."""
