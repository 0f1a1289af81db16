"""One segment's words while it is spoken: from its attention and its samples to their times, and to what is wrong."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from engines.api import Samples, WordTime
from engines.time_scale import scaled_samples
from engines.words.guard import Finding, WordGuard
from engines.words.path import F32
from engines.words.source import AttentionSource
from engines.words.text import Word
from engines.words.timer import Loudness, TimedWord, WordTimer, samples_of


class SegmentWords:
    """The words of one segment, given when the chunk that holds them has been decoded."""

    def __init__(
        self, words: Sequence[Word], text_tokens: int, source: AttentionSource, *, guarded: bool = False
    ) -> None:
        """`guarded`: whether faults are looked for."""
        self._source = source
        self._reading = asyncio.Lock()  # of the source: its rows must be added in order
        self._timer = WordTimer(words, text_tokens)
        self._guard = WordGuard(words, text_tokens) if guarded else None
        self._words = words
        self._loudness = Loudness()
        self._decoded_tokens = 0
        self._last_stop = 0  # sample
        self.guarded = guarded
        self.batch_tokens = source.batch_tokens
        self._rows: deque[F32] = deque()  # read and not followed yet

    async def update(self, speech_tokens: Sequence[int], *, ended: bool = False) -> Finding | None:
        """Read the attention of the speech tokens so far, without the closing silence.

        Returns the first fault that was not returned before; call it again, until there is none. `ended`: T3 has
        stopped by itself.
        """
        async with self._reading:
            self._rows.extend(await self._source.rows(speech_tokens))
            while self._rows:
                row = self._rows.popleft()
                self._timer.add(row[None])
                found = self._guard.add(row, self._timer.path.position) if self._guard is not None else None
                if found is not None:
                    return found
            return self._guard.ended() if ended and self._guard is not None else None

    def decoded(self, samples: Samples, decoded_tokens: int, *, is_last: bool) -> tuple[WordTime, ...]:
        """The words that end in the segment's first `decoded_tokens`, to which `samples` are the newest."""
        self._loudness.add(samples)
        self._decoded_tokens = decoded_tokens
        taken = self._timer.take(decoded_tokens, is_last=is_last)
        if self._guard is not None and self._guard.repeats:  # the path has strayed to words that were not spoken
            taken = [timed for timed in taken if timed.word.first_token <= self._guard.position]
        return tuple(self._word_time(timed) for timed in taken)

    def begun(self) -> tuple[WordTime, ...]:
        """The words whose sound has begun in what was decoded and that were not given yet."""
        last_stop = self._last_stop
        begun = tuple(self._word_time(timed) for timed in self._timer.begun(self._decoded_tokens))
        self._last_stop = last_stop
        return begun

    @property
    def spoken_chars(self) -> int:
        """The chars of the text before which its words were spoken."""
        position = self._timer.path.position if len(self._timer.path) else -1
        if self._guard is not None and self._guard.repeats:
            position = self._guard.position
        return max((word.end_char for word in self._words if word.first_token <= position), default=0)

    def _word_time(self, timed: TimedWord) -> WordTime:
        start, stop = samples_of(timed.start_tokens), samples_of(min(timed.stop_tokens, self._decoded_tokens))
        start = max(start, self._last_stop)
        start, stop = self._loudness.trimmed(start, max(start, stop))
        self._last_stop = stop
        word = timed.word
        return WordTime(word.text, word.start_char, word.end_char, start, stop, word.spoken)

    def close(self) -> None:
        """Free the source."""
        self._source.close()


def at_speed(words: Sequence[WordTime], speed: float) -> tuple[WordTime, ...]:
    """The words of speech whose speed was changed."""
    if speed == 1.0:
        return tuple(words)
    return tuple(
        replace(
            word,
            start_sample=scaled_samples(word.start_sample, speed),
            end_sample=scaled_samples(word.end_sample, speed),
        )
        for word in words
    )
