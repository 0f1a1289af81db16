"""A client for each protocol of the server, which yields PCM s16le at 24 kHz as it arrives."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

import httpx
from riva.client.proto import riva_audio_pb2, riva_tts_pb2, riva_tts_pb2_grpc
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

import mynah
from mynah.client.transport import open_channel, rpc_errors, with_key
from service.load.access import OPEN, Access


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

    def __init__(self, address: str, access: Access = OPEN) -> None:
        self._client = mynah.Client(address, tls=access.tls or False, api_key=access.api_key)

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

    def __init__(self, address: str, access: Access = OPEN) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        context = access.ssl_context()
        self._client = httpx.AsyncClient(
            base_url=f"{'http' if context is None else 'https'}://{address}",
            limits=limits,
            timeout=None,
            headers=access.headers,
            verify=context or False,
        )
        self._extensions = {"sni_hostname": access.server_name} if access.server_name else {}

    async def __aenter__(self) -> Http:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def speak(self, text: str) -> AsyncIterator[bytes]:
        request = {"model": "tts-1", "input": text, "voice": "default", "response_format": "pcm"}
        try:
            calling = self._client.stream("POST", "/v1/audio/speech", json=request, extensions=self._extensions)
            async with calling as response:
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

    def __init__(self, address: str, access: Access = OPEN) -> None:
        context = access.ssl_context()
        self._url = f"{'ws' if context is None else 'wss'}://{address}/v1/stream"
        self._options: dict[str, Any] = {"additional_headers": access.headers}
        if context is not None:
            self._options |= {"ssl": context, "server_hostname": access.server_name or address.rpartition(":")[0]}

    async def __aenter__(self) -> WebSocket:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def speak(self, text: str) -> AsyncIterator[bytes]:
        try:
            protocols = [Subprotocol("mynah.v1")]
            async with connect(self._url, subprotocols=protocols, max_size=None, **self._options) as socket:
                messages: list[dict[str, Any]] = [{"open": {}}, {"text": {"content": text}}, {"end": {}}]
                for message in messages:
                    await socket.send(json.dumps(message))
                async for frame in socket:
                    if isinstance(frame, bytes):
                        yield frame
                    elif "error" in (event := json.loads(frame)):
                        raise Refusal(event["error"]["code"])
        except (WebSocketException, OSError) as error:
            raise Refusal(type(error).__name__) from error


class Riva:
    """`SynthesizeOnline` as Riva's clients call it: one request with the text."""

    def __init__(self, address: str, access: Access = OPEN) -> None:
        self._channel = open_channel(address, access.tls)
        self._stub = riva_tts_pb2_grpc.RivaSpeechSynthesisStub(with_key(self._channel, access.api_key))

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


class Spread:
    """Connections to several servers, which streams take in turn."""

    def __init__(self, surfaces: Sequence[Surface]) -> None:
        self._next = itertools.cycle(surfaces)

    async def __aenter__(self) -> Spread:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def speak(self, text: str) -> AsyncIterator[bytes]:
        return next(self._next).speak(text)


SURFACES: dict[str, type[Grpc] | type[Http] | type[WebSocket] | type[Riva]] = {
    "grpc": Grpc,
    "http": Http,
    "riva": Riva,
    "websocket": WebSocket,
}
