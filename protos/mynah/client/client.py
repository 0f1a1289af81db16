"""The client of one Mynah server or of several."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from mynah.client.errors import MynahError, WrongState
from mynah.client.events import AudioChunk, ServerInfo
from mynah.client.failover import FailoverCall
from mynah.client.servers import Server, Servers
from mynah.client.settings import (
    AudioFormat,
    FirstSegment,
    Sampling,
    Schedule,
    SpeechSettings,
    TextSettings,
    Timeouts,
    Tls,
)
from mynah.client.stream import SpeechStream
from mynah.client.transport import open_channel, rpc_errors, with_key
from mynah.client.voices import Voices
from mynah.client.wire import event_from_wire, info_from_wire, settings_to_wire
from mynah.v1 import speech_pb2

# gRPC's health protocol is two messages of one field each; a package for it would be the client's largest dependency.
_HEALTH_CHECK = "/grpc.health.v1.Health/Check"
_SERVING = bytes([8, 1])  # HealthCheckResponse: field 1, the value SERVING


class Client:
    """The connections to one Mynah server or to several, shared by any number of streams.

    Use it as an async context manager; it connects on first use. Every call raises MynahError if it fails. With several
    servers, a stream opens on one with room. It moves to another if its server fails before the first audio. After the
    first audio the client never retries.

    ```python
    async with mynah.Client("127.0.0.1:50051") as client:
        async for chunk in client.synthesize("Hello there.", audio_format="pcm_s16le"):
            play(chunk.data)
    ```
    """

    def __init__(
        self,
        server: str | Sequence[str] = "127.0.0.1:50051",
        *,
        tls: Tls | bool = False,
        api_key: str | None = None,
        timeouts: Timeouts | None = None,
        moves: int | None = None,
    ) -> None:
        """`server` is "HOST:PORT", a list of them, or "dns:HOST:PORT" for all addresses behind a name.

        `tls=True` trusts the system's certificates; a Tls object names others. `api_key` is sent with every call.
        `moves` is the maximum number of times a stream may be opened again before its first audio; the default is 0
        for one server and two per server for several.
        """
        addresses = [server] if isinstance(server, str) else list(server)
        if not addresses or (len(addresses) > 1 and any(address.startswith("dns:") for address in addresses)):
            message = "`server` must be one HOST:PORT, a list of HOST:PORT, or one dns:HOST:PORT."
            raise WrongState(message, reason="SERVER_UNCLEAR")
        self._servers = Servers(addresses, self._connect)
        self._moves = moves
        self._tls = tls if isinstance(tls, Tls) else (Tls() if tls else None)
        self._api_key = api_key
        self._timeouts = timeouts or Timeouts()
        self._open = False

    def _connect(self, address: str) -> tuple[Any, Any]:
        channel = open_channel(address, self._tls)
        return channel, with_key(channel, self._api_key)

    async def __aenter__(self) -> Client:
        await self._servers.open()
        self._open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._servers.close()

    @property
    def voices(self) -> Voices:
        """The voices. Several servers must share them."""
        self._must_be_open()
        return Voices(self._servers.pick().calls, self._timeouts)

    @property
    def _max_failovers(self) -> int:
        if self._moves is not None:
            return self._moves
        return 2 * self._servers.count if self._servers.count > 1 else 0

    def stream(
        self,
        *,
        voice: str | None = None,
        audio_format: AudioFormat | None = None,
        sample_rate_hz: int | None = None,
        sampling: Sampling | None = None,
        text_settings: TextSettings | None = None,
        speed: float | None = None,
        first_segment: FirstSegment | None = None,
        schedule: Schedule | None = None,
        word_times: bool | None = None,
        word_guard: bool | None = None,
        continuity: bool | None = None,
        language: str | None = None,
        cfg_weight: float | None = None,
        exaggeration: float | None = None,
        model: str | None = None,
    ) -> SpeechStream:
        """Returns a stream; open it with `async with`. The server chooses what is None.

        With `word_times`, `stream.events()` also yields Words: when each word of the audio is spoken.
        """
        self._must_be_open()
        text = text_settings or TextSettings()
        settings = SpeechSettings(
            voice,
            audio_format,
            sample_rate_hz,
            sampling or Sampling(),
            text,
            speed,
            first_segment,
            schedule,
            word_times,
            word_guard,
            continuity,
            language,
            cfg_weight,
            exaggeration,
            model,
        )

        def start() -> FailoverCall:
            return FailoverCall(self._servers, lambda server: server.speech.StreamSpeech(), self._max_failovers)

        return SpeechStream(start, settings, self._timeouts.connect_s)

    async def synthesize(
        self,
        text: str,
        *,
        voice: str | None = None,
        audio_format: AudioFormat | None = None,
        sample_rate_hz: int | None = None,
        sampling: Sampling | None = None,
        text_settings: TextSettings | None = None,
        speed: float | None = None,
        first_segment: FirstSegment | None = None,
        schedule: Schedule | None = None,
        word_guard: bool | None = None,
        continuity: bool | None = None,
        language: str | None = None,
        cfg_weight: float | None = None,
        exaggeration: float | None = None,
        model: str | None = None,
    ) -> AsyncIterator[AudioChunk]:
        """Yields the audio of one text as it is made. Closing the iterator cancels the call."""
        self._must_be_open()
        how_read = text_settings or TextSettings()
        settings = SpeechSettings(
            voice,
            audio_format,
            sample_rate_hz,
            sampling or Sampling(),
            how_read,
            speed,
            first_segment,
            schedule,
            word_guard=word_guard,
            continuity=continuity,
            language=language,
            cfg_weight=cfg_weight,
            exaggeration=exaggeration,
            model=model,
        )
        request = speech_pb2.SynthesizeRequest(settings=settings_to_wire(settings), text=text)
        max_failovers, tried, delivered = self._max_failovers, [self._servers.pick()], False
        while True:
            try:
                async for chunk in _audio_of(tried[-1], request):
                    delivered = True
                    yield chunk
                return
            except MynahError as error:
                if delivered or not error.retryable or len(tried) > max_failovers:
                    raise
                tried[-1].failed(error)
            await asyncio.sleep(self._servers.cooldown_s())
            tried.append(self._servers.pick(avoid=[server.address for server in tried]))

    async def info(self) -> ServerInfo:
        """Returns the server's version, models, formats and limits."""
        self._must_be_open()
        async with rpc_errors():
            request = speech_pb2.GetServerInfoRequest()
            return info_from_wire(
                await self._servers.pick().speech.GetServerInfo(request, timeout=self._timeouts.call_s)
            )

    async def health(self, service: str = "") -> bool:
        """Returns True if the server reports SERVING through gRPC's health protocol. Needs no API key.

        The service "" is SERVING while new streams are accepted; "liveness" is SERVING while the process works, also
        during warm-up and drain. Raises NotFound for any other service.
        """
        self._must_be_open()
        channel = self._servers.pick().channel
        check: Any = channel.unary_unary(_HEALTH_CHECK, request_serializer=str.encode)
        name = chr(10) + chr(len(service)) + service if service else ""  # HealthCheckRequest: field 1, a string
        async with rpc_errors():
            return bool(await check(name, timeout=self._timeouts.call_s) == _SERVING)

    def _must_be_open(self) -> None:
        if not self._open:
            raise WrongState(
                "The client is not open. Use it as `async with mynah.Client(...) as client:`.", reason="CLIENT_NOT_OPEN"
            )


async def _audio_of(server: Server, request: speech_pb2.SynthesizeRequest) -> AsyncIterator[AudioChunk]:
    call = server.speech.Synthesize(request)
    server.acquire()
    try:
        async with rpc_errors():
            async for message in call:
                event = event_from_wire(message)
                if isinstance(event, AudioChunk):
                    yield event
    finally:
        server.release()
        call.cancel()
