"""Addresses to listen on: whether one can be bound, and the sentence about one that cannot."""

from __future__ import annotations

import errno
import socket

from service.config import ConfigError


def check_available(option: str, listen: str) -> None:
    """Raises ConfigError if no socket can be bound to the HOST:PORT of `option` now.

    For gRPC, which would add a log line of its C core and no reason.
    """
    host, _, port = listen.rpartition(":")
    failed: OSError | None = None
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise unavailable(option, listen, error) from error
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                return
        except OSError as error:
            failed = error
    if failed is not None:
        raise unavailable(option, listen, failed) from failed


def unavailable(option: str, listen: str, error: Exception) -> ConfigError:
    """The error about an address, with what to do about it."""
    match error:
        case OSError(errno=errno.EADDRINUSE):
            reason = "another program listens there. Stop it, or choose another address"
        case OSError(errno=errno.EACCES):
            reason = "this user may not. Choose a port from 1024 on"
        case OSError(errno=errno.EADDRNOTAVAIL):
            reason = "this machine does not have that address. Choose one that it has"
        case OSError() if error.strerror:
            reason = f"{error.strerror}. Choose another address"
        case _:
            reason = f"{error}. Choose another address"
    return ConfigError(f"cannot listen on {listen}: {reason} ({option} HOST:PORT).")
