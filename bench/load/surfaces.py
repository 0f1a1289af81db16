"""A client for each protocol of the server, which yields PCM s16le at 24 kHz as it arrives."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Protocol

import grpc.aio
import httpx
from riva.client.proto import riva_audio_pb2, riva_tts_pb2, riva_tts_pb2_grpc
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

import mynah
from mynah.client.transport import rpc_errors


class Refusal(Exception):
    """The stream ended with an error of the server; the message is its reason."""


class Surface(Protocol):
    """A connection to one server, shared by all streams. Used as an async context manager."""

    async def __aenter__(self) -> Surface: ...

    async def __aexit__(self, *_: object) -> None: ...

    def speak(self, text: str) -> AsyncIterator[bytes]:
        """Yields the audio of one text, on a stream of its own. Raises Refusal."""
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


class Http:
    """`POST /v1/audio/speech` as OpenAI's clients call it; the body is read as it arrives."""

    def __init__(self, address: str) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._client = httpx.AsyncClient(base_url=f"http://{address}", limits=limits, timeout=None)

    async def __aenter__(self) -> Http:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def speak(self, text: str) -> AsyncIterator[bytes]:
        request = {"model": "tts-1", "input": text, "voice": "default", "response_format": "pcm"}
        try:
            async with self._client.stream("POST", "/v1/audio/speech", json=request) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise Refusal(response.json()["error"]["code"])
                async for data in _whole_samples(response.aiter_raw()):
                    yield data
        except httpx.HTTPError as error:
            raise Refusal(type(error).__name__) from error


async def _whole_samples(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Joins pieces that a connection split within a sample."""
    rest = b""
    async for piece in pieces:
        data = rest + piece
        whole = len(data) & ~1
        rest = data[whole:]
        if whole:
            yield data[:whole]


class WebSocket:
    """`/v1/stream`: the gRPC stream's messages as JSON, audio as binary frames."""

    def __init__(self, address: str) -> None:
        self._url = f"ws://{address}/v1/stream"

    async def __aenter__(self) -> WebSocket:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def speak(self, text: str) -> AsyncIterator[bytes]:
        try:
            async with connect(self._url, subprotocols=[Subprotocol("mynah.v1")], max_size=None) as socket:
                for message in ({"open": {}}, {"text": {"content": text}}, {"end": {}}):
                    await socket.send(json.dumps(message))
                async for frame in socket:
                    if isinstance(frame, bytes):
                        yield frame
                    elif "error" in (event := json.loads(frame)):
                        raise Refusal(event["error"]["code"])
        except WebSocketException as error:
            raise Refusal(type(error).__name__) from error


class Riva:
    """`SynthesizeOnline` as Riva's clients call it: one request with the text."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self._stub = riva_tts_pb2_grpc.RivaSpeechSynthesisStub(self._channel)

    async def __aenter__(self) -> Riva:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def speak(self, text: str) -> AsyncIterator[bytes]:
        request = riva_tts_pb2.SynthesizeSpeechRequest(
            text=text, language_code="en-US", encoding=riva_audio_pb2.LINEAR_PCM, sample_rate_hz=24_000
        )
        try:
            async with rpc_errors():
                async for response in self._stub.SynthesizeOnline(iter([request])):
                    yield response.audio
        except mynah.MynahError as error:
            raise Refusal(error.reason) from error


SURFACES: dict[str, type[Grpc] | type[Http] | type[WebSocket] | type[Riva]] = {
    "grpc": Grpc,
    "http": Http,
    "riva": Riva,
    "websocket": WebSocket,
}
