"""Middleware for all paths: checks of hosts, origins and API keys, and JSON responses for errors."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial

from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access.auth import Authenticator
from service.access.hosts import Hosts
from service.errors import Unavailable
from service.http.error_responses import HttpError, error_response
from service.http.origins import Origins
from service.http.requests import header
from service.http.speech_request import SPEECH_HEADERS

_PROBED_PATHS = ("/healthz", "/readyz")  # by whatever name a load balancer uses
OPEN_PATHS = (*_PROBED_PATHS, "/openapi.json")  # for probes and tools without a key
_MAX_DRAIN_BYTES, _MAX_DRAIN_S = 32 * 1024 * 1024, 1.0
_MAX_STRANGERS_DRAIN_BYTES = 256 * 1024  # of a request that was refused before its endpoint
_RETRY_AFTER_S = 1.0  # on another server
_KEY_PROTOCOL = "bearer."  # a subprotocol with the key, because a browser's WebSocket cannot set headers


def with_middleware(
    routes: list[Route | WebSocketRoute],
    authenticator: Authenticator,
    origins: tuple[str, ...],
    hosts: Hosts | None = None,
) -> ASGIApp:
    """The routes behind AccessMiddleware and, if `origins` are listed, behind CORS. `hosts` None allows all."""
    router = Router(routes, redirect_slashes=False, default=_not_found)
    app: ASGIApp = AccessMiddleware(router, authenticator, Origins(origins), hosts)
    if origins:
        app = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],  # OpenAI's client for browsers sends a dozen of its own
            expose_headers=["retry-after", "x-request-id", *SPEECH_HEADERS],
        )
    return app


class AccessMiddleware:
    """Checks the host, the origin and the API key of a request, and sends every error as one JSON object."""

    def __init__(self, app: ASGIApp, authenticator: Authenticator, origins: Origins, hosts: Hosts | None) -> None:
        self._app, self._authenticator, self._origins, self._hosts = app, authenticator, origins, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _Exchange(scope, receive, send)
        max_drain_bytes = _MAX_STRANGERS_DRAIN_BYTES
        try:
            self._check_host(scope)
            self._origins.check(scope)
            if scope["path"] not in OPEN_PATHS:
                self._authenticator.authenticate(_authorization(scope))
            max_drain_bytes = _MAX_DRAIN_BYTES
            scope["app"] = self  # makes Starlette's routes raise HTTPException
            await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:  # uvicorn's, for what still runs when the server ends
            response = error_response(_stopped(), f"HTTP {scope.get('method', 'WebSocket')}")
            if response is not None and not exchange.responded:
                await response.send(exchange.send)
        except Exception as error:
            response = error_response(error, f"HTTP {scope.get('method', 'WebSocket')}")
            if response is not None and not exchange.responded:
                complete = await exchange.drain(max_drain_bytes)
                # with unread input the connection's end would reset it, and the client might never see the response
                await response.send(exchange.send, None if complete else partial(exchange.drain, max_drain_bytes))

    def _check_host(self, scope: Scope) -> None:
        """Raises HttpError for a name of another server, which a page may have pointed here (DNS rebinding)."""
        hosts = [value.decode("latin-1") for key, value in scope["headers"] if key == b"host"]
        if self._hosts is None or scope["path"] in _PROBED_PATHS or all(map(self._hosts.allows, hosts)):
            return
        message = (
            "The Host header does not name this server. Use its address, or have its operator allow the name with "
            "--allowed-host."
        )
        raise HttpError(403, "HOST_NOT_ALLOWED", message, field="host", allowed="a name of this server")


class _Exchange:
    """Tracks whether a request was read to its end and whether its response was started."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._websocket = scope["type"] == "websocket"
        self._receive, self._send = receive, send
        self._complete: bool = self._websocket  # a WebSocket's request has no body
        self.responded = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._complete = self._complete or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Sends a message. A WebSocket that is not accepted yet takes HTTP responses too."""
        self.responded = True
        if self._websocket and message["type"].startswith("http.response"):
            message = {**message, "type": f"websocket.{message['type']}"}
        await self._send(message)

    async def drain(self, max_bytes: int) -> bool:
        """Reads the rest of the body, within limits, because a client that is still sending does not read the response.

        Returns whether the body was read to its end.
        """
        read_bytes = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(_MAX_DRAIN_S):
                while not self._complete and read_bytes < max_bytes:
                    read_bytes += len((await self.receive()).get("body", b""))
        return self._complete


def _stopped() -> Unavailable:
    message = "The server stopped before the request was answered; retry on another server."
    return Unavailable("DRAINING", message, retry_after_s=_RETRY_AFTER_S)


def _authorization(scope: Scope) -> str | None:
    authorization = header(scope, b"authorization")
    if authorization is None and scope["type"] == "websocket":
        keys = [name for name in scope["subprotocols"] if name.startswith(_KEY_PROTOCOL)]
        return f"Bearer {keys[0].removeprefix(_KEY_PROTOCOL)}" if len(keys) == 1 else None
    return authorization


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """The endpoint of unknown paths."""
    raise HTTPException(404)
