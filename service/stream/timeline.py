"""A stream's audio between the engine and the reader: encoded when it is made, numbered and wrapped when it is sent.

Counts in samples at the client's rate.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from engines import api
from engines.api import Samples
from engines.model_spec import SAMPLE_RATE_HZ
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


_KEPT_SEGMENTS = 16  # made behind the one that is delivered: as many as the event queue can hold, and more


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
        self._words: dict[tuple[int, int], events.WordTime] = {}  # by segment and char, of the last segments
        self._unsent_words: list[events.WordTime] = []
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

    def add_words(self, spoken: api.Words) -> None:
        """Words of the segment that is made now. Those that go on are known to `delivered_words` only."""
        found = [self._word(word) for word in spoken.words]
        for word in [*found, *map(self._word, spoken.begun)]:
            self._words[spoken.segment_index, word.start_char] = word
        self._unsent_words += found

    def take_words(self, segment_index: int, *, all_made: bool = False) -> events.Words | None:
        """The words whose audio is in the chunks made so far, and that were not taken before; None if there are none.

        A resampler and a codec hold audio back, and with it its words. `all_made`: the segment is complete.
        """
        made = [word for word in self._unsent_words if all_made or word.end_samples <= self.offset_samples]
        self._unsent_words = self._unsent_words[len(made) :]
        if all_made:
            self._words = {key: word for key, word in self._words.items() if key[0] > segment_index - _KEPT_SEGMENTS}
        return events.Words(segment_index, tuple(made)) if made else None

    def _word(self, word: api.WordTime) -> events.WordTime:
        return events.WordTime(
            text=word.text,
            start_char=word.start_char,
            end_char=word.end_char,
            start_samples=self.segment_offset_samples + self._at_clients_rate(word.start_sample),
            end_samples=self.segment_offset_samples + self._at_clients_rate(word.end_sample),
            spoken_text=word.spoken,
        )

    def _at_clients_rate(self, sample: int) -> int:
        return self._encoder.delay_samples + round(sample * self._audio.sample_rate_hz / SAMPLE_RATE_HZ)

    def delivered_words(self, segment_index: int | None) -> tuple[events.WordTime, ...]:
        """The words of a segment of which audio was delivered; the end of one that was cut is the end of that."""
        return tuple(
            replace(word, end_samples=min(word.end_samples, self.delivered_samples))
            for key, word in sorted(self._words.items())
            if key[0] == segment_index and word.start_samples < self.delivered_samples
        )

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
        self._words.clear()
        self._unsent_words.clear()
        self._encoder = Encoder(self._audio, at_start=not self._delivered_chunks)


def _figures(window: api.WindowFigures) -> events.WindowFigures:
    return events.WindowFigures(
        window_index=window.index,
        new_speech_tokens=window.new_speech_tokens,
        made_speech_tokens=window.made_speech_tokens,
        queue_s=window.queue_s,
        decode_s=window.decode_s,
    )
