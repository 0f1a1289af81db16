"""The gateway in front of the page: which requests reach the application, and the headers of every answer.

Gradio draws the page and nothing else. Of its own routes only those that load the page are reachable, with GET and
HEAD: no event of Gradio's can be posted, and no file be uploaded to it or read through it. What the page does on the
server it does through the routes below /mynah, which name every value that they take.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

OWN = "/mynah/"
_OWN_METHODS = ("GET", "HEAD", "POST", "DELETE")
_SAFE_METHODS = ("GET", "HEAD")
# What Gradio's page loads; tests/ui fails if a browser asks for more.
_GRADIO = re.compile(
    r"/|/(?:theme\.css|favicon\.ico|manifest\.json|robots\.txt)|/(?:static|assets)(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)+"
)
_HEADERS = {
    # the page may load from and send to its own host only, and no other site may show it in a frame
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "connect-src 'self' data: blob: {sockets}; worker-src 'self' blob:; font-src 'self' data:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")
_HEADER_BYTES = re.compile(r"[A-Za-z0-9.:\[\]_-]*")


@dataclass(frozen=True)
class Hosts:
    """The names under which the page may be asked for, the defence against DNS rebinding.

    A page on loopback, or on one address, answers to that address, to loopback's names and to `allowed`. A page on all
    addresses stands behind a gateway or a service name: it answers to any name unless `allowed` has some.
    """

    listen: str
    allowed: tuple[str, ...] = ()
    _names: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        names = {name.lower().strip("[]") for name in (self.listen, *self.allowed)}
        object.__setattr__(self, "_names", frozenset(names))

    def allows(self, header: str) -> bool:
        """Whether a request with this Host header is answered."""
        match = _HOST.fullmatch(header)
        if match is None:
            return False
        name = match["name"].lower().strip("[]").removesuffix(".")
        return self._any or name in self._names or _is_loopback(name)

    @property
    def _any(self) -> bool:
        return self.listen in ("", "0.0.0.0", "::") and not self.allowed


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


class Gateway:
    """The application behind its checks and under a path prefix; accepts paths with and without the prefix."""

    def __init__(self, app: App, hosts: Hosts, prefix: str) -> None:
        self._app, self._hosts, self._prefix = app, hosts, prefix

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        else:
            await self._check(scope, receive, send)

    async def _check(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if scope["type"] == "http":
            send = _with_headers(headers.get("host", ""), send)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _refuse(scope, receive, send, *refusal)
        elif scope["type"] == "http" and self._prefix and scope["path"] == self._prefix:
            await _answer(send, 308, b"", [(b"location", (self._prefix + "/").encode())])
        else:
            await self._app(self._inner(scope), receive, send)

    def _refusal(self, scope: Message, headers: dict[str, str]) -> tuple[int, str] | None:
        """The status and the reason for which a request goes no further."""
        path, method = self._inner_path(scope), scope.get("method", "GET")
        if not self._hosts.allows(headers.get("host", "")):
            return 421, "This host name is not allowed. Start the page with --allowed-host NAME to allow it."
        if (scope["type"] == "websocket" or method not in _SAFE_METHODS) and not _same_origin(headers):
            return 403, "Requests from other sites are not allowed."
        if path.startswith(OWN):
            return None if method in _OWN_METHODS else (405, "This method is not allowed.")
        if scope["type"] != "http" or _GRADIO.fullmatch(path) is None:
            return 404, "This page has no such address."
        return None if method in _SAFE_METHODS else (405, "This method is not allowed.")

    def _inner_path(self, scope: Message) -> str:
        path: str = scope["path"]
        inside = path.removeprefix(self._prefix) if path.startswith(self._prefix + "/") else path
        return "/" if self._prefix and path == self._prefix else inside

    def _inner(self, scope: Message) -> Message:
        # without an origin Gradio sends no CORS headers
        headers = [(name, value) for name, value in scope["headers"] if name != b"origin"]
        path = self._prefix + self._inner_path(scope)
        return {**scope, "root_path": self._prefix, "path": path, "headers": headers}


def _same_origin(headers: dict[str, str]) -> bool:
    """Whether a request comes from this page. Without this check any site in a browser could use the server.

    Programs other than browsers send no origin.
    """
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        site = urlsplit(origin).netloc
    except ValueError:
        return False
    return site in (headers.get("x-forwarded-host"), headers.get("host"))


def _with_headers(host: str, send: Send) -> Send:
    host = host if _HEADER_BYTES.fullmatch(host) else ""
    sockets = f"ws://{host} wss://{host}" if host else ""  # in older browsers 'self' does not include WebSockets
    added = [(name.encode(), value.replace("{sockets}", sockets).encode()) for name, value in _HEADERS.items()]

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *added]}
        await send(message)

    return sending


async def _refuse(scope: Message, receive: Receive, send: Send, status: int, reason: str) -> None:
    if scope["type"] == "websocket":  # closed before it is accepted, which a browser sees as status 403
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": reason})
    else:
        await _answer(send, status, reason.encode(), [(b"content-type", b"text/plain; charset=utf-8")])


async def _answer(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
