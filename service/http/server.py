"""uvicorn inside our event loop, with our own socket, no signal handlers, and a bounded shutdown."""

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

from service.http.frames import MAX_FRAME_BYTES
from service.listening import unavailable

_BACKLOG = 1024
_SEND_BUFFER_BYTES = 128 * 1024  # a cancel cannot recall it; enough for 48 kHz float at a round trip of 300 ms
_MAX_CONNECTIONS = 10_000  # of streams, probes, and clients that keep idle connections
_UNSENT_MARGIN_S = 5.0

# uvicorn's error messages for a response that we end early (a stalled client or a failed engine, which our log names)
# and for a client's invalid UTF-8.
_EXPECTED = ("ASGI callable returned without completing response.", "Invalid UTF-8 sequence received from client.")


class HttpServer:
    """An HTTP server for one ASGI application on one address."""

    def __init__(self, app: ASGIApp, stall_timeout_s: float) -> None:
        self._stall_timeout_s = stall_timeout_s
        self._config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="websockets-sansio",
            ws_max_size=MAX_FRAME_BYTES,
            ws_ping_timeout=stall_timeout_s + _UNSENT_MARGIN_S,  # a client that does not read answers no ping
            ws_per_message_deflate=False,  # audio does not compress
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MAX_CONNECTIONS,
        )
        self._running: asyncio.Task[None] | None = None

    async def start(self, listen: str, tls: ssl.SSLContext | None) -> str:
        """Listens; returns the bound HOST:PORT. Raises ConfigError if the address cannot be used."""
        _quiet_uvicorn()
        try:
            bound = _bind(listen, self._stall_timeout_s)
        except OSError as error:
            raise unavailable("--http-listen", listen, error) from error
        host, port = listen.rpartition(":")[0], bound.getsockname()[1]
        self._config.load()
        self._config.ssl = tls
        self._server = _Uvicorn(self._config)
        self._running = asyncio.create_task(self._server.serve([bound]), name="http")
        return f"{host}:{port}"

    async def stop(self, grace_s: float) -> None:
        """Closes idle connections at once and busy ones after `grace_s` at the latest. Idempotent."""
        if self._running is None:
            return
        running, self._running = self._running, None
        self._config.timeout_graceful_shutdown = math.ceil(grace_s)
        self._server.should_exit = True
        await running


class _Uvicorn(uvicorn.Server):
    """A uvicorn server without signal handlers."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _quiet_uvicorn() -> None:
    logger = logging.getLogger("uvicorn.error")
    logger.setLevel(logging.WARNING)
    if _is_fault not in logger.filters:
        logger.addFilter(_is_fault)


def _is_fault(record: logging.LogRecord) -> bool:
    return record.msg not in _EXPECTED


def _bind(listen: str, stall_timeout_s: float) -> socket.socket:
    """Returns a listening socket, whose options every connection inherits. Raises OSError."""
    host, _, port = listen.rpartition(":")
    addresses = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = addresses[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        # the kernel drops the connection of a client that has not acknowledged data for this long
        unsent_ms = round((stall_timeout_s + _UNSENT_MARGIN_S) * 1000)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unsent_ms)
        bound.bind(address)
        bound.listen(_BACKLOG)
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound
