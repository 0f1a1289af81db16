"""A stream's audio between the engine and the reader: encoded when it is made, numbered and wrapped when it is sent.

Counts in samples at the client's rate.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from engines import api
from engines.api import Samples
from engines.worker_pool import WorkerPool
from mynah.client import events
from service.audio.encoder import Encoded, Encoder
from service.audio.formats import AudioSettings

_ENCODERS = WorkerPool(
    "encode",
    workers=(os.cpu_count() or 1) + 4,
    time_limit_s=30.0,
    reason="ENCODE_TIMEOUT",
    work="Encoding the audio",
    max_waiting=10_000,
)


@dataclass(frozen=True)
class PendingChunk:
    """A chunk on its way to the reader. It gets its number and its container's bytes when it is sent."""

    segment_index: int
    offset_samples: int
    encoded: Encoded
    window: api.WindowFigures | None  # None for what a resampler held back until the end of a segment


class Timeline:
    """Where the stream's audio stands, in samples at the client's rate: made, and delivered to the reader."""

    def __init__(self, audio: AudioSettings) -> None:
        self._audio = audio
        self._encoder = Encoder(audio)
        self._writer = audio.writer()
        self._delivered_chunks = 0
        self.offset_samples = 0  # where the next chunk begins
        self.segment_offset_samples = 0
        self.made_samples = 0
        self.delivered_samples = 0

    @property
    def unsent_samples(self) -> int:
        """Made and not yet delivered, without what a cancel dropped."""
        return self.offset_samples - self.delivered_samples

    def begin_segment(self) -> None:
        self.segment_offset_samples = self.offset_samples

    async def encode(self, samples: Samples) -> Encoded:
        return await self._run(partial(self._encoder.encode, samples))

    async def end_segment(self) -> Encoded:
        return await self._run(self._encoder.end_segment)

    async def _run(self, work: Callable[[], Encoded]) -> Encoded:
        """Runs slow formats on a thread. When cancelled, the thread goes on with an encoder that `rewind` replaces."""
        return await _ENCODERS.run(work) if self._audio.audio_format.takes_time else work()

    def enqueue(self, segment_index: int, encoded: Encoded, window: api.WindowFigures | None) -> PendingChunk:
        """The next chunk of what is made."""
        pending = PendingChunk(segment_index, self.offset_samples, encoded, window)
        self.offset_samples += encoded.samples
        self.made_samples += encoded.samples
        return pending

    def emit(self, pending: PendingChunk) -> events.AudioChunk:
        """The next chunk of what is delivered."""
        chunk = events.AudioChunk(
            sequence_number=self._delivered_chunks,
            segment_index=pending.segment_index,
            offset_samples=pending.offset_samples,
            samples=pending.encoded.samples,
            data=self._writer.write(pending.encoded.packets),
            window=None if pending.window is None else _figures(pending.window),
        )
        self._delivered_chunks += 1
        self.delivered_samples += chunk.samples
        return chunk

    def rewind(self) -> None:
        """Drop what was made and not delivered; the next chunk follows the last delivered one."""
        self.offset_samples = self.delivered_samples
        self._encoder = Encoder(self._audio, at_start=not self._delivered_chunks)


def _figures(window: api.WindowFigures) -> events.WindowFigures:
    return events.WindowFigures(
        window_index=window.index,
        new_speech_tokens=window.new_speech_tokens,
        made_speech_tokens=window.made_speech_tokens,
        queue_s=window.queue_s,
        decode_s=window.decode_s,
    )
