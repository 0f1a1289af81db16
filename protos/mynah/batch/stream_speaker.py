"""A speaker of a batch's items over streams: those of a client, or of an engine in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from mynah.batch.run import Spoken
from mynah.batch.script import Item
from mynah.client.errors import InvalidArgument
from mynah.client.events import AudioChunk
from mynah.client.stream import SpeechStream
from mynah.client.stream_stats import StreamStats
from mynah.client.subtitles import Subtitles


class StreamSpeaker:
    """A Speaker (see run.py) for which each item is a stream of its own, with the schedule for no listener."""

    def __init__(
        self,
        make_stream: Callable[..., SpeechStream],
        subtitle_format: str | None = None,
        word_guard: bool | None = None,
    ) -> None:
        """`make_stream`: a Client's `stream`, which balances the load between its servers, or an engine's."""
        self._make_stream, self._subtitle_format, self._word_guard = make_stream, subtitle_format, word_guard

    async def speak(self, item: Item) -> Spoken:
        """Returns all audio of the item. Raises MynahError."""
        stream = self._make_stream(
            voice=item.voice,
            audio_format="pcm_s16le",
            sample_rate_hz=item.sample_rate_hz,
            sampling=item.sampling,
            text_settings=item.text_settings,
            speed=item.speed,
            schedule="offline",
            word_times=True if self._subtitle_format else None,
            word_guard=self._word_guard,
            language=item.model_settings.language,
            cfg_weight=item.model_settings.cfg_weight,
            exaggeration=item.model_settings.exaggeration,
            continuity=item.model_settings.continuity,
            model=item.model_settings.model,
        )
        async with stream:
            rate_hz = stream.opened.settings.sample_rate_hz
            assert rate_hz is not None
            stats, pcm, subtitles = StreamStats(rate_hz), bytearray(), Subtitles(rate_hz)
            stats.text_sent(time.monotonic())
            try:
                async with asyncio.TaskGroup() as tasks:
                    sending = tasks.create_task(_send(stream, item.text))
                    async for event in stream.events():
                        subtitles.add(event)
                        if isinstance(event, AudioChunk):
                            stats.chunk_received(event, time.monotonic())
                            pcm += event.data
                    sending.cancel()
            except BaseExceptionGroup as group:  # both sides raise the same error
                raise group.exceptions[0] from None
        if stats.ttfa_s is None or stats.rtf is None:
            message = "The text contains nothing to speak; send some words."
            raise InvalidArgument(message, reason="TEXT_EMPTY", field="text")
        text = subtitles.in_format(self._subtitle_format) if self._subtitle_format else ""
        return Spoken(bytes(pcm), rate_hz, stats.ttfa_s, stats.rtf * stats.audio_s, text)


async def _send(stream: SpeechStream, text: str) -> None:
    await stream.send_long(text)
    await stream.end()
