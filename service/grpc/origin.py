"""Where a gRPC call came from, for the log."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import grpc.aio

from service.handlers.stream_log import Origin


def origin_of(context: grpc.aio.ServicerContext[Any, Any], surface: str = "grpc") -> Origin:
    """The call's origin. gRPC writes a peer as "ipv4:HOST:PORT" or "ipv6:%5BHOST%5D:PORT"."""
    family, _, address = context.peer().partition(":")
    return Origin(surface, unquote(address) if family in ("ipv4", "ipv6") else context.peer())
