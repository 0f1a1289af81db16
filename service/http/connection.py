"""Connections of the HTTP port: uvicorn's protocols with a time limit for heads, and reads that take turns.

A read is short, because thousands of tiny chunks or frames fit into a long one and each costs the event loop time.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from collections import deque
from functools import partial
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame
from websockets.http11 import Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from service.access.listener import Slot
from service.access.turns import Account, Turns
from service.http.error_responses import UNPACED, ErrorResponse, invalid_request, no_proxy

HEAD_TIMEOUT_S = 10.0
_READ_BYTES = 4096
_HANDSHAKE_HEADERS = (b"sec-websocket-", b"upgrade", b"connection")  # what websockets reads
_MAX_FRAGMENTS = 1024  # of one WebSocket message; its bytes are limited, empty ones are not
_MAX_UNREAD_PONG_BYTES = 65_536

log = logging.getLogger("uvicorn.error")  # so that messages are treated as those of a library
_shared = memoryview(bytearray(_READ_BYTES))  # a read is copied from it before another one begins


# A request with both may have passed a proxy that believes the other length: nothing after it is read (RFC 9112, 6.1)
_LENGTHS = {b"content-length", b"transfer-encoding"}


class PacedReads(asyncio.BufferedProtocol):
    """Passes what is read to `data_received` of the class behind it, a little at a time and in turns."""

    transport: asyncio.Transport
    turns: Turns
    account: Account
    _pending: deque[bytes]

    def start_paced(self, turns: Turns, account: Account) -> None:
        self.turns, self.account, self._pending = turns, account, deque()

    @property
    def reading_paused(self) -> bool:
        """Whether the protocol itself has paused reading."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        raise NotImplementedError

    def get_buffer(self, sizehint: int) -> memoryview:
        return _shared

    def buffer_updated(self, nbytes: int) -> None:
        self._pending.append(bytes(_shared[:nbytes]))
        if len(self._pending) == 1 and not self.turns.submit(self.account, self._take):
            self.transport.pause_reading()

    def _take(self) -> None:
        """Handles the oldest read; the others follow in turns of their own."""
        if self.transport.is_closing():
            self._pending.clear()
            return
        try:
            self.data_received(self._pending[0])
        except Exception as error:
            log.error("a connection ends, because its input cannot be handled", exc_info=error)
            self._pending.clear()
            self.transport.abort()
            return
        self._pending.popleft()
        if self._pending:
            self.turns.submit(self.account, self._take)
        elif not self.reading_paused:
            self.transport.resume_reading()


def _without_tunnels(app: Any) -> Any:
    """`app`, which never sees CONNECT: h11 takes its connection for a tunnel as soon as an answer is a success."""

    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "CONNECT":
            await app(scope, receive, send)
            return
        refusal = no_proxy()
        headers = _last_headers(refusal)
        await send({"type": "http.response.start", "status": refusal.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": refusal.body})

    return refuse


class HttpConnection(PacedReads, H11Protocol):  # type: ignore[misc]  # its eof_received is typed more narrowly
    """HTTP/1.1. A head must be complete in time, measured from the connection's start or the response before."""

    def __init__(
        self,
        *args: Any,
        slot: Slot,
        turns: Turns,
        head_timeout_s: float = HEAD_TIMEOUT_S,
        max_age_s: float = math.inf,
        **kwargs: Any,
    ):
        """`max_age_s` is the age from which the connection takes no further request."""
        super().__init__(*args, **kwargs)
        self.app = self._with_unpaced(_without_tunnels(self.app))
        self._ends_s = self.loop.time() + max_age_s
        self.start_paced(turns, Account())
        self._slot = slot
        self._head_timeout_s = head_timeout_s
        self._head_timer: asyncio.TimerHandle | None = None
        self.ws_protocol_class = partial(WebSocketConnection, slot=slot, turns=turns, account=self.account)  # type: ignore[assignment]
        self._upgraded = False

    @property
    def reading_paused(self) -> bool:
        return not self._upgraded and self.flow.read_paused

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._slot.transport = transport
        self._await_head()

    def _with_unpaced(self, app: Any) -> Any:
        """`app`, whose UNPACED messages do not wait for the client."""

        async def run(scope: Any, receive: Any, send: Any) -> None:
            async def send_now(message: Any) -> None:
                if message.get(UNPACED) and self.flow.write_paused:
                    self._ends_s = self.loop.time()  # the transport pauses once only: nothing else may follow
                    self.flow.resume_writing()
                await send(message)

            await app(scope, receive, send_now)

        return run

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._pending.clear()
        self._slot.release()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        H11Protocol.data_received(self, data)
        if self._head_timer is not None and (self._upgraded or self._has_request):
            self._stop_timer()
            self._slot.set_busy(not self._upgraded)  # a WebSocket says itself when it is

    def on_response_complete(self) -> None:
        names = {name for name, _ in self.cycle.scope["headers"]}
        if self.loop.time() >= self._ends_s or names >= _LENGTHS:
            self.transport.close()
        super().on_response_complete()
        if not self.transport.is_closing() and not self._has_request:
            self._await_head()

    def send_400_response(self, msg: str) -> None:
        """Answers a head or a body that is not HTTP, unless an answer has begun. The request's handler is to end."""
        is_head = False
        if self._has_request:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            is_head = self.cycle.scope["method"] == "HEAD"
        error = sys.exception()  # uvicorn calls this where it handles h11's error
        if isinstance(error, h11.RemoteProtocolError):
            self._refuse(invalid_request(str(error).rstrip(".") or msg, error.error_status_hint), is_head)
        else:
            self._refuse(invalid_request(msg.rstrip(".")), is_head)

    def _refuse(self, refusal: ErrorResponse, is_head: bool) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers = _last_headers(refusal)
            reason = HTTPStatus(refusal.status_code).phrase.encode()
            answer: list[h11.Event] = [h11.Response(status_code=refusal.status_code, headers=headers, reason=reason)]
            answer += [] if is_head else [h11.Data(data=refusal.body)]
            for part in (*answer, h11.EndOfMessage()):
                self.transport.write(self.conn.send(part) or b"")
        self.transport.close()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        read = [value for name, value in self.headers if name.startswith(_HANDSHAKE_HEADERS)]
        problem = None if event.method == b"GET" else "a WebSocket's handshake must be a GET request"
        if not all(map(bytes.isascii, read)):  # websockets raises what uvicorn does not handle
            problem = "the headers of a WebSocket's handshake must be ASCII"
        if problem is not None:
            self._refuse(invalid_request(problem), is_head=event.method == b"HEAD")
            return
        self._upgraded = True
        super().handle_websocket_upgrade(event)

    @property
    def _has_request(self) -> bool:
        """Whether a head is complete whose response is not."""
        return self.cycle is not None and not self.cycle.response_complete

    def _await_head(self) -> None:
        """The rest of a body whose response was sent before its end counts as a part of the next head."""
        self._stop_timer()
        self._slot.set_busy(False)
        self._head_timer = self.loop.call_later(self._head_timeout_s, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def _last_headers(refusal: ErrorResponse) -> list[tuple[bytes, bytes]]:
    """The headers of a refusal behind which the connection closes."""
    return [*refusal.headers, (b"content-length", b"%d" % len(refusal.body)), (b"connection", b"close")]


class _Handshake(ServerProtocol):
    """websockets' protocol, whose refusals are the contract's errors."""

    def reject(self, status: HTTPStatus | int, text: str) -> Response:
        response = super().reject(status, text)
        refusal = invalid_request(
            text.strip().removeprefix("Failed to open a WebSocket connection: ").rstrip("."), int(status)
        )
        response.body = refusal.body
        for name in ("Content-Type", "Content-Length"):
            del response.headers[name]
        for header, value in (*refusal.headers, (b"Content-Length", b"%d" % len(refusal.body))):
            response.headers[header.decode()] = value.decode()
        return response


class WebSocketConnection(PacedReads, WebSocketsSansIOProtocol):  # type: ignore[misc]
    """A WebSocket. Counts as busy from its first message on. It cannot pile up fragments or pongs."""

    def __init__(self, *args: Any, slot: Slot, turns: Turns, account: Account, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.conn = _Handshake(max_size=self.config.ws_max_size, logger=log)
        self.start_paced(turns, account)
        self._slot = slot
        slot.set_busy(False)

    @property
    def reading_paused(self) -> bool:
        return self.read_paused

    def connection_lost(self, exc: Exception | None) -> None:
        self._pending.clear()
        self._slot.release()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        WebSocketsSansIOProtocol.data_received(self, data)
        if not self.handshake_initiated and self.conn.handshake_exc is not None:
            self._refuse_handshake(self.conn.handshake_exc)

    def _refuse_handshake(self, error: Exception) -> None:
        """Answers a head that HTTP allows and websockets does not: with a body, with too many headers."""
        self.handshake_initiated = self.handshake_complete = self.close_sent = True
        cause = error.__cause__ or error
        refusal = invalid_request(str(cause).rstrip("."))
        head = _last_headers(refusal)
        lines = [b"HTTP/1.1 400 Bad Request", *(b": ".join(pair) for pair in head), b"", refusal.body]
        self.transport.write(b"\r\n".join(lines))
        self.transport.close()

    async def send(self, message: Any) -> None:
        waits = message.get(UNPACED) and not self.writable.is_set()
        if waits:
            self.writable.set()
        await super().send(message)
        if waits:
            self.writable.clear()
        if self.close_sent:  # a refusal ends the handshake; uvicorn would log an error for each
            self.handshake_complete = True

    def send_receive_event_to_app(self) -> None:
        if self.conn.state is not State.OPEN:  # this side has closed, and this message was in the same piece
            self.frames = []
            return
        self._slot.set_busy(True)
        super().send_receive_event_to_app()

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= _MAX_FRAGMENTS:
            self.conn.fail(CloseCode.POLICY_VIOLATION, f"a message may have {_MAX_FRAGMENTS} fragments")
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()
            return
        super().handle_cont(event)

    def handle_ping(self) -> None:
        if self.transport.get_write_buffer_size() > _MAX_UNREAD_PONG_BYTES:
            self.transport.abort()
            return
        super().handle_ping()
