"""A stream's audio between the engine and the reader: encoded when it is made, numbered and wrapped when it is sent.

Counts in samples at the client's rate. Knows nothing of text, queues or RPC.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from engines.api import Samples, WindowFigures
from service.audio.encoder import Encoded, Encoder
from service.audio.formats import AudioSettings


@dataclass(frozen=True)
class Audio:
    """A chunk; `offset_samples` is its place on the timeline of what was sent, at the client's rate."""

    sequence_number: int
    segment_index: int
    offset_samples: int
    samples: int
    data: bytes
    window: WindowFigures | None = None  # None for what a resampler held back to a segment's end


@dataclass(frozen=True)
class PendingChunk:
    """A chunk on its way to the reader: it gets its number and its container's bytes when it is really sent."""

    segment_index: int
    offset_samples: int
    encoded: Encoded
    window: WindowFigures | None


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

    def begin_segment(self) -> None:
        self.segment_offset_samples = self.offset_samples

    async def encode(self, samples: Samples) -> Encoded:
        return await self._run(partial(self._encoder.encode, samples))

    async def end_segment(self) -> Encoded:
        return await self._run(self._encoder.end_segment)

    async def _run(self, work: Callable[[], Encoded]) -> Encoded:
        """Off the event loop where it takes time. When cancelled it runs on, in an encoder that `rewind` replaces."""
        return await asyncio.to_thread(work) if self._audio.audio_format.takes_time else work()

    def make(self, segment_index: int, encoded: Encoded, window: WindowFigures | None) -> PendingChunk:
        made = PendingChunk(segment_index, self.offset_samples, encoded, window)
        self.offset_samples += encoded.samples
        self.made_samples += encoded.samples
        return made

    def deliver(self, made: PendingChunk) -> Audio:
        number, samples = self._delivered_chunks, made.encoded.samples
        self._delivered_chunks += 1
        self.delivered_samples += samples
        data = self._writer.write(made.encoded.packets)
        return Audio(number, made.segment_index, made.offset_samples, samples, data, made.window)

    def rewind(self) -> None:
        """Go on from what was delivered; what was made beyond it is gone."""
        self.offset_samples = self.delivered_samples
        self._encoder = Encoder(self._audio, at_start=not self._delivered_chunks)
