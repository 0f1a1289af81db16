"""The client's version. The server's is in `engines/version.py`; both are released together."""

VERSION = "0.1.0"
