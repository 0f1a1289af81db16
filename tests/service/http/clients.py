"""Clients of the HTTP server: an httpx client, and a WebSocket for the contract's stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from engines.fake import Script
from tests.service.serving import Serving, serving

SPEECH = "/v1/audio/speech"
HELLO = {"model": "tts-1", "input": "Hello there.", "voice": "default"}
LONG = "This sentence is said again and again, for a long time. " * 100


@asynccontextmanager
async def http_serving(script: Script | None = None, **config: Any) -> AsyncIterator[tuple[Serving, httpx.AsyncClient]]:
    """Runs a server; yields it and a client of its HTTP port."""
    async with serving(script, http=True, **config) as at, httpx.AsyncClient(base_url=f"http://{at.http}") as client:
        yield at, client


@asynccontextmanager
async def socket(at: Serving, query: str = "", **options: Any) -> AsyncIterator[Stream]:
    """Opens a WebSocket to /v1/stream."""
    url = f"ws://{at.http}/v1/stream{query}"
    async with connect(url, proxy=None, max_size=None, compression=None, **options) as connection:
        yield Stream(connection)


class Stream:
    """Messages as dictionaries; a binary frame becomes the `data` of the audio event before it."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, **message: Any) -> None:
        await self.connection.send(json.dumps(message))

    async def receive(self) -> dict[str, Any] | None:
        """Returns the next event, or None if the server has closed the connection."""
        async with asyncio.timeout(10):
            try:
                event: dict[str, Any] = json.loads(await self.connection.recv())
                if "audio" in event and "data" not in event["audio"]:
                    event["audio"]["data"] = await self.connection.recv()
            except ConnectionClosed:
                return None
        return event

    async def receive_all(self) -> list[dict[str, Any]]:
        events = []
        while (event := await self.receive()) is not None:
            events.append(event)
        return events

    @property
    def close_code(self) -> int | None:
        return self.connection.close_code


def kinds(events: list[dict[str, Any]]) -> list[str]:
    """Names of the events in order; consecutive audio events count once."""
    names = [next(iter(event)) for event in events]
    return [name for name, before in zip(names, [None, *names], strict=False) if name != "audio" or before != "audio"]
