"""uvicorn inside our event loop, with our own socket, no signal handlers, and a bounded shutdown."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import uvicorn
from starlette.types import ASGIApp

from service.access.listener import Listener, Slot, bind
from service.access.turns import Turns
from service.http.connection import HttpConnection
from service.listening import unavailable

_SEND_BUFFER_BYTES = 128 * 1024  # a cancel cannot recall it; enough for 48 kHz float at a round trip of 300 ms
_UNSENT_MARGIN_S = 5.0

# uvicorn's error messages for a response that we end early (a stalled client or a failed engine, which our log names)
# and for a client's invalid UTF-8.
_EXPECTED = ("ASGI callable returned without completing response.", "Invalid UTF-8 sequence received from client.")


class HttpServer:
    """An HTTP server for one ASGI application on one address."""

    def __init__(
        self,
        app: ASGIApp,
        stall_timeout_s: float,
        turns: Turns,
        *,
        max_connections: int,
        max_frame_bytes: int,
        max_age_s: float = math.inf,
    ) -> None:
        """`max_age_s` is the age from which a connection takes no further request."""
        self._stall_timeout_s = stall_timeout_s
        self._turns = turns
        self._max_connections = max_connections
        self._max_age_s = max_age_s
        self._config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            http=HttpConnection,
            ws="websockets-sansio",  # HttpConnection brings its own subclass
            ws_max_size=max_frame_bytes,
            ws_ping_timeout=stall_timeout_s + _UNSENT_MARGIN_S,  # a client that does not read answers no ping
            ws_per_message_deflate=False,  # audio does not compress
            server_header=False,
            proxy_headers=False,
        )
        self._running: asyncio.Task[None] | None = None

    @property
    def listener(self) -> Listener:
        return self._server.listener

    async def start(self, listen: str, tls: Callable[[], ssl.SSLContext] | None) -> str:
        """Listens; returns the bound HOST:PORT. `tls` gives a connection's context. Raises ConfigError."""
        _quiet_uvicorn()
        try:
            bound = _bind(listen, self._stall_timeout_s)
        except OSError as error:
            raise unavailable("--http-listen", listen, error) from error
        host, port = listen.rpartition(":")[0], bound.getsockname()[1]
        self._config.load()
        self._server = _Uvicorn(self._config, self._turns, self._max_connections, tls, self._max_age_s)
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
    """A uvicorn server without signal handlers, with connections from our Listener."""

    def __init__(
        self,
        config: uvicorn.Config,
        turns: Turns,
        max_connections: int,
        tls: Callable[[], ssl.SSLContext] | None,
        max_age_s: float,
    ) -> None:
        super().__init__(config)
        self._turns, self._max_connections, self._tls, self._max_age_s = turns, max_connections, tls, max_age_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        assert sockets is not None
        (bound,) = sockets
        await self.lifespan.startup()
        self.listener = Listener(bound, self._connection, self._max_connections, self._tls)
        self.servers = [self.listener]  # type: ignore[list-item]  # it has what uvicorn calls
        self.started = True

    def _connection(self, slot: Slot) -> HttpConnection:
        connection = partial(HttpConnection, self.config, self.server_state, self.lifespan.state)
        return connection(slot=slot, turns=self._turns, max_age_s=self._max_age_s)

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
    bound = bind(listen)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    # the kernel drops the connection of a client that has not acknowledged data for this long
    unsent_ms = round((stall_timeout_s + _UNSENT_MARGIN_S) * 1000)
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unsent_ms)
    return bound
