"""The protocols a stream can be spoken over, one small class each. Each gives PCM s16le at 24 kHz as it arrives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import mynah


class Refusal(Exception):
    """The stream ended with an error of the server's; the message is its reason."""


class Surface(Protocol):
    """A connection to one server, shared by all streams. Used as an async context manager."""

    async def __aenter__(self) -> Surface: ...

    async def __aexit__(self, *_: object) -> None: ...

    def speak(self, text: str) -> AsyncIterator[bytes]:
        """The audio of one text on a stream of its own. Raises Refusal."""
        ...


class Grpc:
    """mynah.v1 `StreamSpeech`: open, text, half-close."""

    def __init__(self, address: str) -> None:
        self._client = mynah.Client(address)

    async def __aenter__(self) -> Grpc:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.__aexit__()

    async def speak(self, text: str) -> AsyncIterator[bytes]:
        try:
            async with self._client.stream(audio_format="pcm_s16le", sample_rate_hz=24_000) as stream:
                await stream.send(text)
                await stream.end()
                async for chunk in stream:
                    yield chunk.data
        except mynah.MynahError as error:
            raise Refusal(error.reason) from error


SURFACES = {"grpc": Grpc}
