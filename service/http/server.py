"""uvicorn inside our own event loop: a socket of ours, no signal handlers, an end that does not wait for ever."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from service.config import ConfigError
from service.http.frames import MOST_BYTES

_BACKLOG = 1024
_SEND_BUFFER_BYTES = 128 * 1024  # what a cancel cannot call back; enough for 48 kHz float at a round trip of 300 ms
_MOST_CONNECTIONS = 10_000  # streams, of which fewer are admitted, probes, clients that keep a connection
_UNSENT_MARGIN_S = 5.0

# What uvicorn calls errors and is a client's doing, or our own log says: a response that we end before its end because
# the client stalled or the engine failed; text that is no UTF-8.
_NO_FAULTS = ("ASGI callable returned without completing response.", "Invalid UTF-8 sequence received from client.")


class HttpServer:
    """One application on one address."""

    def __init__(self, app: ASGIApp, stall_timeout_s: float) -> None:
        self._stall_timeout_s = stall_timeout_s
        self._config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="websockets-sansio",
            ws_max_size=MOST_BYTES,
            ws_ping_timeout=stall_timeout_s + _UNSENT_MARGIN_S,  # a client that does not read does not answer either
            ws_per_message_deflate=False,  # audio does not get any smaller
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MOST_CONNECTIONS,
        )
        self._running: asyncio.Task[None] | None = None

    async def start(self, listen: str, tls: ssl.SSLContext | None) -> str:
        """Listen; returns the bound HOST:PORT. Raises ConfigError when the address cannot be had."""
        _quiet_uvicorn()
        try:
            bound = _bind(listen, self._stall_timeout_s)
        except OSError as error:
            raise ConfigError(f"cannot listen on {listen}: {error}") from error
        host, port = listen.rpartition(":")[0], bound.getsockname()[1]
        self._config.load()
        self._config.ssl = tls
        self._server = _Uvicorn(self._config)
        self._running = asyncio.create_task(self._server.serve([bound]), name="http")
        return f"{host}:{port}"

    async def stop(self, goodbye_s: float) -> None:
        """End all connections: idle ones at once, those that are busy when `goodbye_s` have passed. Idempotent."""
        if self._running is None:
            return
        running, self._running = self._running, None
        self._config.timeout_graceful_shutdown = math.ceil(goodbye_s)
        self._server.should_exit = True
        await running


class _Uvicorn(uvicorn.Server):
    """Leaves signals to the process around it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _quiet_uvicorn() -> None:
    logger = logging.getLogger("uvicorn.error")
    logger.setLevel(logging.WARNING)
    if _is_a_fault not in logger.filters:
        logger.addFilter(_is_a_fault)


def _is_a_fault(record: logging.LogRecord) -> bool:
    return record.msg not in _NO_FAULTS


def _bind(listen: str, stall_timeout_s: float) -> socket.socket:
    """A listening socket; what is set here, every connection inherits. Raises OSError."""
    host, _, port = listen.rpartition(":")
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        # a client that takes nothing for that long is gone: the kernel drops the connection with all that is unsent
        unsent_ms = round((stall_timeout_s + _UNSENT_MARGIN_S) * 1000)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unsent_ms)
        bound.bind(address)
        bound.listen(_BACKLOG)
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound
