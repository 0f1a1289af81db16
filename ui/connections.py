"""Connections of the page's port: how many may be open, and how long one may take for the head of a request.

Without the limits, connections that ask for nothing would use up the process's file descriptors.
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

MAX_CONNECTIONS = 512  # below the usual limit of 1024 descriptors; the recordings' sockets have a limit of their own
HEAD_TIMEOUT_S = 10.0
_INVALID_HANDSHAKE = "Invalid WebSocket handshake."
_REFUSAL = (
    "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
    f"Content-Length: {len(_INVALID_HANDSHAKE)}\r\n\r\n{_INVALID_HANDSHAKE}"
)


class Socket(WebSocketsSansIOProtocol):
    """A WebSocket. Ends with an error if websockets cannot read its handshake: another method, a body, a long head."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.handshake_initiated and self.conn.handshake_exc is not None:
            self.handshake_initiated = self.handshake_complete = self.close_sent = True
            self.transport.write(_REFUSAL.encode())
            self.transport.close()


class Connection(H11Protocol):
    """HTTP/1.1. A head must be complete in time, measured from the connection's start or the response before.

    A new connection at the limit takes the place of the one that has waited longest for its head.
    """

    max_connections = MAX_CONNECTIONS
    head_timeout_s = HEAD_TIMEOUT_S
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()
        if len(self.connections) > self.max_connections:
            waiting = [one for one in self.connections if isinstance(one, Connection)]
            min(waiting, key=Connection._deadline).end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._has_request:
            self._stop_timer()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and not self._has_request:
            self._await_head()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._stop_timer()
        # what websockets reads; it would raise what uvicorn does not handle
        read = (b"sec-websocket-", b"upgrade", b"connection")
        if not all(value.isascii() for name, value in self.headers if name.startswith(read)):
            self.send_400_response(_INVALID_HANDSHAKE)
            return
        super().handle_websocket_upgrade(event)

    def end(self) -> None:
        """End the connection without an answer."""
        self._stop_timer()
        self.transport.abort()

    def _deadline(self) -> float:
        """The loop's time at which a connection that waits for a head ends; a busy one has none."""
        return float("inf") if self._head_timer is None else self._head_timer.when()

    @property
    def _has_request(self) -> bool:
        """Whether a head is complete whose response is not."""
        return self.cycle is not None and not self.cycle.response_complete

    def _await_head(self) -> None:
        """The rest of a body whose response was sent before its end counts as a part of the next head."""
        self._stop_timer()
        self._head_timer = self.loop.call_later(self.head_timeout_s, self.end)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
