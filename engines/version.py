"""The server's version. The client's is in `mynah/version.py`; both are released together."""

VERSION = "0.1.0"
