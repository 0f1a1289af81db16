"""The speech server."""

import os

# gRPC's core reads this once, when gRPC is imported. Its lines go through `stderr_filter`.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
