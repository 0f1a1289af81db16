"""The speech server."""

import os

# gRPC's core would write a line to stderr for every failed handshake, past our formatter and its limits. It reads this
# once, when gRPC is imported. An operator who needs its lines sets the variable.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
