"""Pipecat's TTS service over Mynah's client: an audio context, a turn of the bot, is a stream of the server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from pipecat.frames.frames import CancelFrame, EndFrame, Frame, TTSAudioRawFrame
from pipecat.processors.frame_processor import FrameProcessorSetup
from pipecat.services.settings import TTSSettings
from pipecat.services.tts_service import TextAggregationMode, TTSService
from pipecat.utils.types import NOT_GIVEN, NotGiven

import mynah

# Every turn's end is marked, so this only bounds the wait for a server that neither speaks nor fails.
_SILENT_CONTEXT_S = 30.0


@dataclass
class MynahTTSSettings(TTSSettings):
    """The settings of MynahTTSService. `voice` is an id or a name, `model` one of the server's, `speed` is 0.5 to 2;
    `text_settings` says how text is read and has the dictionary of respellings. `language` is one of the model's, e.g.
    Language.DE; `cfg_weight` (0 to 2) and `exaggeration` (0.25 to 2) are for models that have them. None: the server
    chooses.
    """

    sampling: mynah.Sampling | NotGiven | None = field(default_factory=lambda: NOT_GIVEN)
    speed: float | NotGiven | None = field(default_factory=lambda: NOT_GIVEN)
    text_settings: mynah.TextSettings | NotGiven | None = field(default_factory=lambda: NOT_GIVEN)
    cfg_weight: float | NotGiven | None = field(default_factory=lambda: NOT_GIVEN)
    exaggeration: float | NotGiven | None = field(default_factory=lambda: NOT_GIVEN)


@dataclass
class _Turn:
    """The stream of one audio context, and the task that receives its audio. After an error its text is dropped."""

    stream: mynah.SpeechStream
    closing: AsyncExitStack = field(default_factory=AsyncExitStack)
    receiving: asyncio.Task[None] | None = None
    text_ended: bool = False
    failed: bool = False


class MynahTTSService(TTSService):
    """Text to speech by a Mynah server.

    ```python
    tts = MynahTTSService("127.0.0.1:50051", settings=MynahTTSService.Settings(voice="default"))
    ```
    """

    Settings = MynahTTSSettings
    _settings: MynahTTSSettings

    def __init__(
        self,
        server: str | Sequence[str] = "127.0.0.1:50051",
        *,
        settings: MynahTTSSettings | None = None,
        api_key: str | None = None,
        tls: mynah.Tls | bool = False,
        text_aggregation_mode: TextAggregationMode = TextAggregationMode.TOKEN,
        first_segment: mynah.FirstSegment | None = None,
        word_times: bool = False,
        word_guard: bool | None = None,
        continuity: bool | None = None,
        **options: Any,
    ) -> None:
        """`server`, `tls` and `api_key` are those of `mynah.Client`; `options` are those of Pipecat's TTSService.

        `first_segment` is "sentence", "clause" or "auto": where the first speech of a turn may end.
        `word_times` pushes each word as a TTSTextFrame when it is spoken, so that after an interruption the context
        holds what was heard: for servers whose `(await client.info()).word_times` is true.
        `continuity` has each sentence's speech go on from that of the sentence before: for servers whose
        `(await client.info()).continuity` is true.
        """
        chosen = MynahTTSSettings(
            model=None,
            voice=None,
            language=None,
            sampling=None,
            speed=None,
            text_settings=None,
            cfg_weight=None,
            exaggeration=None,
        )
        if settings is not None:
            chosen.apply_update(settings)
        super().__init__(
            settings=chosen,
            text_aggregation_mode=text_aggregation_mode,
            push_start_frame=True,
            push_stop_frames=True,
            push_text_frames=not word_times,
            **{"stop_frame_timeout_s": _SILENT_CONTEXT_S, **options},
        )
        key = api_key or os.environ.get("MYNAH_API_KEY")
        self._client = mynah.Client(server, tls=tls, api_key=key)
        self._first_segment, self._continuity = first_segment, continuity
        self._word_times, self._word_guard = word_times, word_guard
        self._connections = AsyncExitStack()
        self._turns: dict[str, _Turn] = {}

    def can_generate_metrics(self) -> bool:
        return True

    @property
    def supports_processing_metrics(self) -> bool:
        return False  # `run_tts` returns once the text is sent

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Opens the client, which connects at the first turn."""
        await super().setup(setup)
        await self._connections.enter_async_context(self._client)

    async def stop(self, frame: EndFrame) -> None:
        """Speaks what has been sent, then stops."""
        for context_id in list(self._turns):
            await self.flush_audio(context_id)
        await super().stop(frame)

    async def cancel(self, frame: CancelFrame) -> None:
        """Stops at once."""
        await self._close_all()
        await super().cancel(frame)

    async def cleanup(self) -> None:
        await self._close_all()
        await self._connections.aclose()
        await super().cleanup()

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        """Sends the text to the turn's stream, whose audio arrives in a task of its own."""
        turn = self._turns.get(context_id)
        if turn is None:
            turn = self._turns[context_id] = _Turn(self._new_stream())
        try:
            if turn.receiving is None and not turn.failed:
                await turn.closing.enter_async_context(turn.stream)
                turn.receiving = self.create_task(self._receive(context_id, turn), name="mynah-receive")
            if not turn.failed:
                await turn.stream.send_long(text)
                await self.start_tts_usage_metrics(text)
        except (mynah.MynahError, OSError) as error:
            await self._fail(turn, error)
        yield None

    async def flush_audio(self, context_id: str | None = None) -> None:
        """The turn has no more text."""
        context_id = context_id or self.get_active_audio_context_id() or ""
        turn = self._turns.get(context_id)
        if turn is not None and turn.failed:
            await self._finish(context_id)
        elif turn is not None:
            turn.text_ended = True
            await turn.stream.end()

    async def on_audio_context_interrupted(self, context_id: str) -> None:
        """Ends the turn's stream, and with it the server's work."""
        await self.stop_all_metrics()
        await self._close(context_id)
        await super().on_audio_context_interrupted(context_id)

    def _new_stream(self) -> mynah.SpeechStream:
        language = self._settings.language
        return self._client.stream(
            voice=self._settings.voice or None,
            audio_format="pcm_s16le",
            sample_rate_hz=self.sample_rate,
            sampling=self._settings.sampling or None,
            text_settings=self._settings.text_settings or None,
            speed=_number(self._settings.speed),
            first_segment=self._first_segment,
            word_times=self._word_times,
            word_guard=self._word_guard,
            continuity=self._continuity,
            language=str(language) if isinstance(language, str) else None,
            cfg_weight=_number(self._settings.cfg_weight),
            exaggeration=_number(self._settings.exaggeration),
            model=self._settings.model or None,
        )

    async def _receive(self, context_id: str, turn: _Turn) -> None:
        """Moves the stream's audio into the audio context, and ends the context with the stream."""
        transcript = mynah.Subtitles(self.sample_rate)
        try:
            async for event in turn.stream.events():
                transcript.add(event)
                if isinstance(event, mynah.AudioChunk):
                    frame = TTSAudioRawFrame(
                        audio=event.data, sample_rate=self.sample_rate, num_channels=1, context_id=context_id
                    )
                    await self.append_to_audio_context(context_id, frame)
                elif isinstance(event, mynah.Words):
                    words = zip(event.words, transcript.written(event), strict=True)
                    times = [(written, word.start_samples / self.sample_rate) for word, written in words]
                    await self.add_word_timestamps(times, context_id)
        except mynah.MynahError as error:
            await self._fail(turn, error)
        await turn.closing.aclose()
        if turn.text_ended or not turn.failed:
            await self._finish(context_id)

    async def _fail(self, turn: _Turn, error: Exception) -> None:
        """Reports the turn's first error. The turn stays until its text ends, because more of it may come."""
        if not turn.failed:
            turn.failed = True
            await self.push_error(error_msg=_sentence(error), exception=error)

    async def _finish(self, context_id: str) -> None:
        self._turns.pop(context_id, None)
        if self.audio_context_available(context_id):
            await self.remove_audio_context(context_id)

    async def _close(self, context_id: str) -> None:
        turn = self._turns.pop(context_id, None)
        if turn is None:
            return
        if turn.receiving is not None:
            await self.cancel_task(turn.receiving)
        await turn.closing.aclose()

    async def _close_all(self) -> None:
        for context_id in list(self._turns):
            await self._close(context_id)


def _number(setting: float | NotGiven | None) -> float | None:
    return setting if isinstance(setting, int | float) else None


def _sentence(error: Exception) -> str:
    reason = f" [{error.reason}]" if isinstance(error, mynah.MynahError) else ""
    return f"Mynah: {error}{reason}"
