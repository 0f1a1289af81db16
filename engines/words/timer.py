"""The times of a segment's words, as its attention arrives and its audio is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engines.model_spec import SAMPLES_PER_TOKEN
from engines.words.path import F32, I64, MonotonePath, boundaries
from engines.words.text import Word


@dataclass(frozen=True)
class TimedWord:
    """A word and its part of the segment, in speech tokens."""

    word: Word
    start_tokens: float
    stop_tokens: float


class WordTimer:
    """One segment's words. Each is given once, when the speech that holds it has been decoded."""

    def __init__(self, words: Sequence[Word], text_tokens: int) -> None:
        self._words, self._text_tokens = words, text_tokens
        self._given = 0
        self._given_until = 0.0  # speech tokens
        self.path = MonotonePath(text_tokens)

    def add(self, attention: F32) -> None:
        """As MonotonePath.add: a row for each speech token, in order."""
        self.path.add(attention)

    def take(self, decoded_tokens: int, *, is_last: bool) -> list[TimedWord]:
        """The words that end in the first `decoded_tokens`, and were not given before.

        `is_last`: no speech follows, so that words are also given whose end is not certain, except those that the
        speech did not reach.
        """
        first_rows, taken = boundaries(self.path.tokens(), self._text_tokens), []
        rows = len(self.path)
        while self._given < len(self._words):
            timed = self._timed(self._words[self._given], first_rows)
            left = first_rows[timed.word.stop_token] < rows and timed.stop_tokens <= decoded_tokens
            if not (left or (is_last and first_rows[timed.word.first_token] < rows)):
                break
            taken.append(timed)
            self._given += 1
            self._given_until = timed.stop_tokens
        return taken

    def begun(self, decoded_tokens: int) -> list[TimedWord]:
        """The words that begin in the first `decoded_tokens` and were not given."""
        first_rows = boundaries(self.path.tokens(), self._text_tokens)
        timed = [self._timed(word, first_rows) for word in self._words[self._given :]]
        spoken = min(len(self.path), decoded_tokens)
        return [each for each in timed if first_rows[each.word.first_token] < spoken]

    def _timed(self, word: Word, first_rows: I64) -> TimedWord:
        start = _within(first_rows, word.first_token, word.first_share)
        stop = _within(first_rows, word.stop_token - 1, word.stop_share)
        start = max(start, self._given_until)
        return TimedWord(word, start, max(start, stop))


def _within(first_rows: I64, token: int, share: float) -> float:
    begin, end = int(first_rows[token]), int(first_rows[token + 1])
    return begin + (end - begin) * share


class Loudness:
    """How loud a segment is in each 10 ms, to find where a word's sound begins and ends."""

    FRAME = 240
    # of the loudest frame so far; a word fades into its end, whose last stop may be all but silent
    _QUIET_START, _QUIET_END = 10 ** (-38 / 20), 10 ** (-55 / 20)

    def __init__(self) -> None:
        self._frames = np.zeros(0, np.float32)

    def add(self, samples: F32) -> None:
        """The segment's next samples, whole speech tokens of them."""
        frames = samples[: len(samples) // self.FRAME * self.FRAME].reshape(-1, self.FRAME)
        self._frames = np.concatenate([self._frames, np.sqrt(np.mean(frames**2, -1))])

    def trimmed(self, start: int, stop: int) -> tuple[int, int]:
        """[start, stop) in samples without the silence at its ends; as it is if all of it is silent."""
        first, last = start // self.FRAME, -(-stop // self.FRAME)
        loudest, frames = self._frames.max(initial=0.0), self._frames[first:last]
        begun = np.nonzero(frames > self._QUIET_START * loudest)[0]
        if not len(begun):
            return start, stop
        heard = np.nonzero(frames > self._QUIET_END * loudest)[0]
        return max(start, (first + int(begun[0])) * self.FRAME), min(stop, (first + int(heard[-1]) + 1) * self.FRAME)


def samples_of(speech_tokens: float) -> int:
    """Where a place in a segment's speech lies in its samples, at the model's rate."""
    return round(speech_tokens * SAMPLES_PER_TOKEN)
