"""The Python client: connections, streams, voices, and their values and errors."""
