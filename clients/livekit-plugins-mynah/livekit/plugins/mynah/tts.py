"""LiveKit's TTS interface over Mynah's client: a stream of LiveKit is a stream of the server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack

from livekit.agents import APIConnectionError, APIConnectOptions, APIStatusError, APITimeoutError, tts, utils
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS, TimedString

import mynah

_CHANNELS = 1
# For LiveKit's rules on what is retried: HTTP's status codes.
_STATUSES: dict[type[mynah.MynahError], int] = {
    mynah.InvalidArgument: 400,
    mynah.NotAllowed: 401,
    mynah.NotFound: 404,
    mynah.AlreadyExists: 409,
    mynah.WrongState: 409,
    mynah.ServerBusy: 429,
    mynah.StreamCancelled: 499,
}


class TTS(tts.TTS):
    """Text to speech by a Mynah server.

    ```python
    session = AgentSession(tts=mynah.TTS("127.0.0.1:50051", voice="default"))
    ```
    """

    def __init__(
        self,
        server: str | Sequence[str] = "127.0.0.1:50051",
        *,
        voice: str | None = None,
        sample_rate: int = 24_000,
        sampling: mynah.Sampling | None = None,
        speed: float | None = None,
        text_settings: mynah.TextSettings | None = None,
        first_segment: mynah.FirstSegment | None = None,
        api_key: str | None = None,
        tls: mynah.Tls | bool = False,
        word_times: bool = False,
        word_guard: bool | None = None,
        language: str | None = None,
        cfg_weight: float | None = None,
        exaggeration: float | None = None,
        continuity: bool | None = None,
        model: str | None = None,
    ) -> None:
        """`server`, `tls` and `api_key` are those of `mynah.Client`; `voice` is an id or a name.

        `model` is one of the server's, `(await client.info()).models`; None: the first.

        `speed` is 0.5 to 2, at the voice's pitch; None: 1.
        `text_settings` says how text is read: its numbers, Markdown, emoji and pauses, and a dictionary of respellings.
        `first_segment` is "sentence", "clause" or "auto": where the first speech of an answer may end.
        `language` is one of the model's, e.g. "de"; `cfg_weight` (0 to 2) and `exaggeration` (0.25 to 2) are for models
        that have them: `(await client.info())` lists all three.
        `word_times` gives LiveKit the words with their times, for an aligned transcript: for servers whose
        `(await client.info()).word_times` is true.
        `continuity` has each sentence's speech go on from that of the sentence before: for servers whose
        `(await client.info()).continuity` is true.
        """
        super().__init__(
            capabilities=tts.TTSCapabilities(streaming=True, aligned_transcript=word_times),
            sample_rate=sample_rate,
            num_channels=_CHANNELS,
        )
        self._word_times, self._word_guard, self._continuity = word_times, word_guard, continuity
        self._server = server
        self._api_key = api_key or os.environ.get("MYNAH_API_KEY")
        self._tls = tls
        self._voice = voice
        self._sampling = sampling
        self._speed = speed
        self._text_settings, self._first_segment = text_settings, first_segment
        self._language, self._cfg_weight, self._exaggeration = language, cfg_weight, exaggeration
        self._model = model
        self._connections = AsyncExitStack()
        self._connecting = asyncio.Lock()
        self._client: mynah.Client | None = None

    @property
    def model(self) -> str:
        return self._model or "chatterbox"

    @property
    def provider(self) -> str:
        return "Mynah"

    def update_options(
        self,
        *,
        voice: str | None = None,
        sampling: mynah.Sampling | None = None,
        speed: float | None = None,
        text_settings: mynah.TextSettings | None = None,
        language: str | None = None,
        cfg_weight: float | None = None,
        exaggeration: float | None = None,
        model: str | None = None,
    ) -> None:
        """Changes what is given, for the streams that follow."""
        self._voice = voice or self._voice
        self._sampling = sampling or self._sampling
        self._speed = self._speed if speed is None else speed
        self._text_settings = text_settings or self._text_settings
        self._language = language or self._language
        self._cfg_weight = self._cfg_weight if cfg_weight is None else cfg_weight
        self._exaggeration = self._exaggeration if exaggeration is None else exaggeration
        self._model = model or self._model

    def synthesize(
        self, text: str, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    ) -> tts.ChunkedStream:
        return self._synthesize_with_stream(text, conn_options=conn_options)

    def stream(self, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS) -> SynthesizeStream:
        return SynthesizeStream(tts=self, conn_options=conn_options)

    async def open_stream(self) -> mynah.SpeechStream:
        """Returns a stream with the present options, which its user opens. Connects at the first call."""
        async with self._connecting:
            if self._client is None:
                client = mynah.Client(self._server, tls=self._tls, api_key=self._api_key)
                self._client = await self._connections.enter_async_context(client)
        return self._client.stream(
            voice=self._voice,
            audio_format="pcm_s16le",
            sample_rate_hz=self.sample_rate,
            sampling=self._sampling,
            text_settings=self._text_settings,
            speed=self._speed,
            first_segment=self._first_segment,
            word_times=self._word_times,
            word_guard=self._word_guard,
            continuity=self._continuity,
            language=self._language,
            cfg_weight=self._cfg_weight,
            exaggeration=self._exaggeration,
            model=self._model,
        )

    async def aclose(self) -> None:
        self._client = None
        await self._connections.aclose()


class SynthesizeStream(tts.SynthesizeStream):
    """One stream. LiveKit cancels its task at an interruption, which ends the server's stream at once."""

    _tts: TTS

    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        output_emitter.initialize(
            request_id=utils.shortuuid(),
            sample_rate=self._tts.sample_rate,
            num_channels=_CHANNELS,
            mime_type="audio/pcm",
            stream=True,
        )
        try:
            async with await self._tts.open_stream() as stream:
                output_emitter.start_segment(segment_id=stream.opened.stream_id)
                await self._speak(stream, output_emitter)
                output_emitter.end_segment()
        except mynah.MynahError as error:
            raise _as_api_error(error) from error
        except OSError as error:  # a certificate that cannot be read
            raise APIConnectionError(str(error)) from error

    async def _speak(self, stream: mynah.SpeechStream, output_emitter: tts.AudioEmitter) -> None:
        """Send and receive at the same time. If one fails, the other is cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(self._send(stream))
                transcript = mynah.Subtitles(self._tts.sample_rate)
                async for event in stream.events():
                    if isinstance(event, mynah.AudioChunk):
                        output_emitter.push(event.data)
                    transcript.add(event)
                    if isinstance(event, mynah.Words):
                        words = zip(event.words, transcript.written(event), strict=True)
                        output_emitter.push_timed_transcript([self._timed(*word) for word in words])
                sending.cancel()  # the server has ended the stream
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    def _timed(self, word: mynah.WordTime, written: str) -> TimedString:
        """A word with its marks and the space behind it; seconds from the start of the stream's audio."""
        rate_hz = self._tts.sample_rate
        return TimedString(f"{written} ", start_time=word.start_samples / rate_hz, end_time=word.end_samples / rate_hz)

    async def _send(self, stream: mynah.SpeechStream) -> None:
        async for text in self._input_ch:
            if isinstance(text, self._FlushSentinel):
                await stream.flush()
            else:
                self._mark_started()
                await stream.send_long(text)
        await stream.end()


def _as_api_error(error: mynah.MynahError) -> APIConnectionError | APIStatusError | APITimeoutError:
    if isinstance(error, mynah.Unavailable):
        return APIConnectionError(str(error), retryable=error.retryable)
    if isinstance(error, mynah.TimedOut):
        return APITimeoutError(str(error), retryable=error.retryable)
    status = next((code for kind, code in _STATUSES.items() if isinstance(error, kind)), 500)
    body = {"reason": error.reason, "field": error.field, "allowed": error.allowed}
    return APIStatusError(str(error), status_code=status, body=body, retryable=error.retryable)
