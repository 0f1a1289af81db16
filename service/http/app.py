"""The application: which path is whose, and what stands before all of them: origins, API keys, errors."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access.auth import Authenticator
from service.http.error_responses import answer_to
from service.http.origins import Origins
from service.http.requests import header

OPEN_PATHS = ("/healthz", "/readyz", "/openapi.json")  # for probes and tools that have no key
_REST_BYTES, _REST_S = 32 * 1024 * 1024, 1.0
_KEY_PROTOCOL = "bearer."  # where a browser's WebSocket, which can set no header, may put its key


def application(routes: list[Route | WebSocketRoute], gate: Authenticator, origins: tuple[str, ...]) -> ASGIApp:
    """The routes behind the door, and behind CORS where the operator lists pages."""
    app: ASGIApp = Door(Router(routes, redirect_slashes=False, default=nothing_here), gate, Origins(origins))
    if origins:
        app = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["authorization", "content-type"],
            expose_headers=["retry-after", "x-request-id"],
        )
    return app


class Door:
    """Lets a request through to its endpoint; every refusal, here or there, leaves as one JSON object."""

    def __init__(self, inside: ASGIApp, gate: Authenticator, origins: Origins) -> None:
        self._inside, self._gate, self._origins = inside, gate, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _Exchange(scope, receive, send)
        try:
            self._origins.check(scope)
            if scope["path"] not in OPEN_PATHS:
                self._gate.authenticate(_authorization(scope))
            scope["app"] = self  # Starlette's routes then raise for what they do not have
            await self._inside(scope, exchange.receive, exchange.send)
        except Exception as error:
            answer = answer_to(error, f"HTTP {scope.get('method', 'WebSocket')}")
            if answer is not None and not exchange.answered:
                whole = await exchange.read_rest()
                await answer.send(exchange.send, close=not whole)


class _Exchange:
    """One request and its answer: how far either has come."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._websocket = scope["type"] == "websocket"
        self._receive, self._send = receive, send
        self._read: bool = self._websocket  # to its end; a WebSocket's request has no body
        self.answered = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._read = self._read or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Before a WebSocket is accepted it can be answered like any request."""
        self.answered = True
        if self._websocket and message["type"].startswith("http.response"):
            message = {**message, "type": f"websocket.{message['type']}"}
        await self._send(message)

    async def read_rest(self) -> bool:
        """Take in what is left of a body, within bounds: a client that is still sending would not see the answer.

        Returns whether that was all of it.
        """
        read_bytes = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(_REST_S):
                while not self._read and read_bytes < _REST_BYTES:
                    read_bytes += len((await self.receive()).get("body", b""))
        return self._read


def _authorization(scope: Scope) -> str | None:
    given = header(scope, b"authorization")
    if given is None and scope["type"] == "websocket":
        keys = [name for name in scope["subprotocols"] if name.startswith(_KEY_PROTOCOL)]
        return f"Bearer {keys[0].removeprefix(_KEY_PROTOCOL)}" if len(keys) == 1 else None
    return given


async def nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    """For paths that nobody has."""
    raise HTTPException(404)
