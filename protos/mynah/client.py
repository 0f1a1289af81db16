"""The client: one connection to one server, and the calls that can be made on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from mynah.errors import WrongState
from mynah.events import AudioChunk, ServerInfo
from mynah.settings import AudioFormat, Sampling, SpeechSettings, Timeouts, Tls
from mynah.stream import SpeechStream
from mynah.transport import open_channel, rpc_errors, with_key
from mynah.v1 import speech_pb2, speech_pb2_grpc
from mynah.voices import Voices
from mynah.wire import event_from_wire, info_from_wire, settings_to_wire

# gRPC's health protocol is two messages of one field each; a package for it would be the client's largest dependency.
_HEALTH_CHECK = "/grpc.health.v1.Health/Check"
_SERVING = bytes([8, 1])  # HealthCheckResponse: field 1, the value SERVING


class Client:
    """A connection to a Mynah server; made on first use, shared by any number of streams.

    Use it as an async context manager. Every call raises MynahError; nothing is retried.
    """

    def __init__(
        self,
        server: str = "127.0.0.1:50051",
        *,
        tls: Tls | bool = False,
        api_key: str | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        """`server` is HOST:PORT. `tls=True` trusts the system's certificates; a Tls says which others."""
        self._server = server
        self._tls = tls if isinstance(tls, Tls) else (Tls() if tls else None)
        self._api_key = api_key
        self._timeouts = timeouts or Timeouts()
        self._voices: Voices | None = None

    async def __aenter__(self) -> Client:
        self._channel = open_channel(self._server, self._tls)
        calls = with_key(self._channel, self._api_key)
        self._speech = speech_pb2_grpc.SpeechStub(calls)  # type: ignore[no-untyped-call]
        self._voices = Voices(calls, self._timeouts)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    @property
    def voices(self) -> Voices:
        """The server's voices."""
        self._must_be_open()
        assert self._voices is not None
        return self._voices

    def stream(
        self,
        *,
        voice: str | None = None,
        audio_format: AudioFormat | None = None,
        sample_rate_hz: int | None = None,
        sampling: Sampling | None = None,
    ) -> SpeechStream:
        """A stream to be opened with `async with`. What is None is the server's choice."""
        self._must_be_open()
        settings = SpeechSettings(voice, audio_format, sample_rate_hz, sampling or Sampling())
        return SpeechStream(self._speech.StreamSpeech, settings, self._timeouts.connect_s)

    async def synthesize(
        self,
        text: str,
        *,
        voice: str | None = None,
        audio_format: AudioFormat | None = None,
        sample_rate_hz: int | None = None,
        sampling: Sampling | None = None,
    ) -> AsyncIterator[AudioChunk]:
        """The audio of one text as it is made. Closing the iterator early ends the work."""
        self._must_be_open()
        settings = SpeechSettings(voice, audio_format, sample_rate_hz, sampling or Sampling())
        request = speech_pb2.SynthesizeRequest(settings=settings_to_wire(settings), text=text)
        call = self._speech.Synthesize(request)
        try:
            async with rpc_errors():
                async for message in call:
                    event = event_from_wire(message)
                    if isinstance(event, AudioChunk):
                        yield event
        finally:
            call.cancel()

    async def info(self) -> ServerInfo:
        """Who speaks, and what may be asked of it."""
        self._must_be_open()
        async with rpc_errors():
            request = speech_pb2.GetServerInfoRequest()
            return info_from_wire(await self._speech.GetServerInfo(request, timeout=self._timeouts.call_s))

    async def health(self, service: str = "") -> bool:
        """Whether the server says SERVING, by gRPC's own health protocol; asks for no key.

        `service` "" means that it takes new streams, "liveness" that its process works, warming up and draining
        included. Raises NotFound for a service that it does not know.
        """
        self._must_be_open()
        check: Any = self._channel.unary_unary(_HEALTH_CHECK, request_serializer=str.encode)
        name = chr(10) + chr(len(service)) + service if service else ""  # HealthCheckRequest: field 1, a string
        async with rpc_errors():
            return bool(await check(name, timeout=self._timeouts.call_s) == _SERVING)

    def _must_be_open(self) -> None:
        if self._voices is None:
            raise WrongState("the client is not open; use `async with`", reason="CLIENT_NOT_OPEN")
