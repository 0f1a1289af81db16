"""One segment's words while it is spoken: from its attention and its samples to the times that are sent."""

from __future__ import annotations

from collections.abc import Sequence

from engines.api import Samples, WordTime
from engines.words.source import AttentionSource
from engines.words.text import Word
from engines.words.timer import Loudness, TimedWord, WordTimer, samples_of


class SegmentWords:
    """The words of one segment, given when the chunk that holds them has been decoded."""

    def __init__(self, words: Sequence[Word], text_tokens: int, source: AttentionSource) -> None:
        self._source = source
        self._timer = WordTimer(words, text_tokens)
        self._loudness = Loudness()
        self._decoded_tokens = 0
        self._last_stop = 0  # sample

    async def update(self, speech_tokens: Sequence[int]) -> None:
        """Read the attention of the speech tokens so far, without the closing silence."""
        self._timer.add(await self._source.rows(speech_tokens))

    def decoded(self, samples: Samples, decoded_tokens: int, *, is_last: bool) -> tuple[WordTime, ...]:
        """The words that end in the segment's first `decoded_tokens`, to which `samples` are the newest."""
        self._loudness.add(samples)
        self._decoded_tokens = decoded_tokens
        return tuple(self._word_time(timed) for timed in self._timer.take(decoded_tokens, is_last=is_last))

    def begun(self) -> tuple[WordTime, ...]:
        """The words whose sound has begun in what was decoded and that were not given yet."""
        last_stop = self._last_stop
        begun = tuple(self._word_time(timed) for timed in self._timer.begun(self._decoded_tokens))
        self._last_stop = last_stop
        return begun

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
