"""The web application: the Gradio page and the routes of its JavaScript, on one origin.

It holds the connection to the Mynah server. It works under a path prefix whether or not a proxy strips the prefix.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from fastapi.staticfiles import StaticFiles

import mynah
from ui.config import PageConfig
from ui.page import Page
from ui.recordings import Recordings
from ui.speaking import speak
from ui.status import watch

STATIC = Path(__file__).parent / "static"
MAX_UPLOAD = "32mb"  # the page's limit; the server has its own and checks it

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_HEADERS = {
    # the page may load from and send to its own host only
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "connect-src 'self' data: blob: {socket}; worker-src 'self' blob:; font-src 'self' data:; object-src 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def make_app(config: PageConfig, api_key: str | None) -> Prefixed:
    """Returns the application. It must run on one event loop."""
    client = mynah.Client(config.server, tls=config.tls, api_key=api_key, timeouts=mynah.Timeouts(call_s=10.0))
    recordings = Recordings()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with client:
            yield

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    @app.websocket("/mynah/speak")
    async def speaking(socket: WebSocket) -> None:
        if _same_origin(socket):
            await speak(socket, client, recordings)
        else:
            await socket.close(code=1008, reason="requests from other sites are not allowed")

    @app.get("/mynah/status")
    async def status() -> StreamingResponse:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(watch(client, config.server), media_type="text/event-stream", headers=headers)

    app.mount("/mynah/static", _Static(directory=STATIC))
    page = Page(client, recordings, config.root_path)
    mounted = gr.mount_gradio_app(
        app,
        page.blocks,
        "/",
        root_path=config.root_path or None,
        max_file_size=MAX_UPLOAD,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        favicon_path=str(STATIC / "mynah.png"),
        **page.looks,
    )
    return Prefixed(mounted, config.root_path)


def _same_origin(socket: WebSocket) -> bool:
    """Whether the socket comes from this page. Without this check any site in a browser could use the server."""
    origin = socket.headers.get("origin")
    hosts = (socket.headers.get("x-forwarded-host"), socket.headers.get("host"))
    return origin is None or urlsplit(origin).netloc in hosts


class _Static(StaticFiles):
    """Static files that browsers revalidate on each use."""

    def file_response(self, *args: Any, **kwargs: Any) -> Any:
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "no-cache"
        return response


class Prefixed:
    """The application under a path prefix. Accepts paths with and without it, and adds the security headers."""

    def __init__(self, app: FastAPI, prefix: str) -> None:
        self._app, self._prefix = app, prefix

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http" and self._prefix and scope["path"] == self._prefix:
            location = (self._prefix + "/").encode()
            await send({"type": "http.response.start", "status": 308, "headers": [(b"location", location)]})
            await send({"type": "http.response.body", "body": b""})
        else:
            await self._app(self._with_prefix(scope), receive, self._with_headers(scope, send))

    def _with_prefix(self, scope: Message) -> Message:
        path: str = scope["path"]
        if self._prefix and not path.startswith(self._prefix + "/"):
            path = self._prefix + path
        return {**scope, "root_path": self._prefix, "path": path}

    def _with_headers(self, scope: Message, send: Send) -> Send:
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        sockets = f"ws://{host} wss://{host}"  # in older browsers 'self' does not include WebSockets

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(k.encode(), v.replace("{socket}", sockets).encode()) for k, v in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *added]}
            await send(message)

        return sending
