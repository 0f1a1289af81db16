"""The web application: the Gradio page and the routes of its JavaScript, on one origin.

It holds the connection to the Mynah server. It works under a path prefix whether or not a proxy strips the prefix.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles

import mynah
from ui.config import PageConfig
from ui.error_messages import PAGE_FAILURE
from ui.gateway import Gateway, Hosts
from ui.page import Page
from ui.recordings import Recordings, recording_routes
from ui.speaking import socket_slots, speak
from ui.status import watch
from ui.uploads import Uploads
from ui.voices import voice_routes

STATIC = Path(__file__).parent / "static"
_log = logging.getLogger("mynah.page")


def make_app(config: PageConfig, api_key: str | None) -> Gateway:
    """Returns the application. It must run on one event loop."""
    client = mynah.Client(config.server, tls=config.tls, api_key=api_key, timeouts=mynah.Timeouts(call_s=10.0))
    recordings, sockets = Recordings(), socket_slots()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with client:
            yield

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(Exception, _failure)

    @app.websocket("/mynah/speak")
    async def speaking(socket: WebSocket) -> None:
        await speak(socket, client, recordings, sockets)

    @app.get("/mynah/status")
    async def status() -> StreamingResponse:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(watch(client, config.server), media_type="text/event-stream", headers=headers)

    app.include_router(voice_routes(client, Uploads()))
    app.include_router(recording_routes(recordings))
    app.mount("/mynah/static", _Static(directory=STATIC))
    page = Page(config.root_path)
    mounted = gr.mount_gradio_app(
        app,
        page.blocks,
        "/",
        root_path=config.root_path or None,
        max_file_size=0,  # Gradio's own upload is closed anyway, see gateway.py
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        favicon_path=str(STATIC / "mynah.png"),
        **page.looks,
    )
    return Gateway(mounted, Hosts(config.host, config.allowed_host), config.root_path)


async def _failure(request: Request, error: Exception) -> JSONResponse:
    """The answer to a request that met an unforeseen exception; the log has the exception."""
    _log.error("%s %s failed: %s", request.method, request.url.path, type(error).__name__)
    return JSONResponse(PAGE_FAILURE, 500)


class _Static(StaticFiles):
    """Static files that browsers revalidate on each use."""

    def file_response(self, *args: Any, **kwargs: Any) -> Any:
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "no-cache"
        return response
