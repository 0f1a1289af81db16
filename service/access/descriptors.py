"""The limit on open files, and how many connections each port may hold below it."""

from __future__ import annotations

import logging
import resource
from dataclasses import dataclass

log = logging.getLogger("mynah.service")

_UNLIMITED = 1_048_576  # what "unlimited" stands for
_OWN_FILES = 192  # models, sockets of stores, decoders of uploads, pipes of workers, the listening sockets
_ADMIN = 32
_MAX_CONNECTIONS = 10_000  # of streams, probes, and clients that keep idle connections
_MIN_CONNECTIONS = 8


@dataclass(frozen=True)
class Connections:
    """The connections that each port may hold at once."""

    http: int
    grpc: int
    admin: int


def raise_limit() -> int:
    """Raises this process's limit on open files to the hard limit. Returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return _number(soft)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        log.warning("the limit on open files stays at %d: %s", soft, error)
        return _number(soft)
    log.info("the limit on open files is raised from %d to %d", soft, _number(hard))
    return _number(hard)


def connections(limit: int | None = None) -> Connections:
    """The shares of a limit on open files; by default the process's own. gRPC and HTTP never take each other's."""
    if limit is None:
        limit = _number(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    each = max(_MIN_CONNECTIONS, (limit - _OWN_FILES - _ADMIN) // 2)
    share = min(_MAX_CONNECTIONS, each)
    return Connections(http=share, grpc=share, admin=_ADMIN)


def _number(limit: int) -> int:
    return _UNLIMITED if limit == resource.RLIM_INFINITY else limit
