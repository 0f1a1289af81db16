"""Where the first segment of a silent stream may end before its sentence does, and when it had better.

The length of a sentence is unknown while it is being written. Waiting for its end costs the listener silence; ending
a segment at a clause costs the melody of the sentence. The rule compares both in seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from service.stream.segmenter import TAG
from service.stream.sentences.english import ENGLISH
from service.stream.sentences.rules import SentenceRules

_SENTENCE_WORDS = 20  # of a usual sentence
_MIN_LEFT_WORDS = 4  # of a sentence that is longer than that
_MIN_WORDS = 4  # of a segment: fewer sound cut off
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")  # kana, Chinese characters: two are a word
# The pauses, in seconds, that are as bad as the melody of a segment that ends there.
_CLAUSE_S, _CONJUNCTION_S, _PHRASE_S = 0.35, 0.6, 0.9

Kinds = tuple[tuple[re.Pattern[str], float], ...]


class FirstSegment(Enum):
    """Where the first segment of a silent stream may end: with its sentence, with a clause, or as the pace asks."""

    SENTENCE = "sentence"
    CLAUSE = "clause"
    AUTO = "auto"


@dataclass(frozen=True)
class EarlyEnd:
    """An index of a text behind which a segment may end, and the pause that is as bad."""

    end: int
    price_s: float


def first_clause_end(text: str, stop: int, rules: SentenceRules = ENGLISH) -> int | None:
    """Returns the first end of a clause before index `stop`; None if there is none."""
    return min((early.end for early in _ends(text, stop, _clauses(rules))), default=None)


def _clauses(rules: SentenceRules) -> Kinds:
    return (rules.strong_clause, _CLAUSE_S), (rules.comma, _CLAUSE_S), (rules.conjunction, _CONJUNCTION_S)


def _ends(text: str, stop: int, kinds: Kinds) -> list[EarlyEnd]:
    tags = [match.span() for match in TAG.finditer(text)]
    return [
        EarlyEnd(match.end(), price_s)
        for kind, price_s in kinds
        for match in kind.finditer(text)
        if match.end() < stop and _word_count(text[: match.end()]) >= _MIN_WORDS
        if not any(first < match.end() < last for first, last in tags)
    ]


def _word_count(text: str) -> int:
    unspaced = 0 if text.isascii() else len(_UNSPACED.findall(text))
    return len(text.split()) + unspaced // 2


class EarlyStart:
    """Decides when to end the unfinished sentence of a stream that has nothing else to speak.

    Times are on one clock. `dry_at_s` says when the listener has played all; None: nothing has been sent yet.
    """

    def __init__(self, dry_at_s: Callable[[], float | None], rules: SentenceRules = ENGLISH) -> None:
        self._dry_at_s = dry_at_s
        self._phrases = (*_clauses(rules), (rules.preposition, _PHRASE_S))
        self._text = ""
        self._ends: list[EarlyEnd] = []
        self._began_s = 0.0
        self._words = 0  # of the sentence so far
        self._cut_words = 0  # of them in segments that ended early

    def update(self, text: str, decided: int, now_s: float, *, begun: bool) -> None:
        """`text` waits for the end of its sentence, which is not before index `decided`; `begun`: it began just now."""
        if begun or not (self._text or self._cut_words):
            self._began_s, self._cut_words = now_s, 0
        self._text, self._ends = text, _ends(text, decided, self._phrases)
        self._words = self._cut_words + _word_count(text)

    def cut(self, end: int) -> None:
        """The text up to `end` became a segment."""
        self._cut_words += _word_count(self._text[:end])
        self._text, self._ends = self._text[end:], []

    def next(self, now_s: float) -> tuple[int, float] | None:
        """Returns where to end the segment, and when if nothing more comes until then; None: nowhere."""
        timed = [(self._due_s(early, now_s), early.price_s, -early.end) for early in self._ends]
        if not timed:
            return None
        due = [each for each in timed if each[0] <= now_s]
        at_s, _, end = min(due, key=lambda each: each[1:]) if due else min(timed)
        return -end, at_s

    def _due_s(self, early: EarlyEnd, now_s: float) -> float:
        """When the wait for the rest of the sentence, at the writer's pace, begins to cost more than `early`.

        The expected wait grows while nothing comes, and what the listener has left to play shrinks.
        """
        left_words = max(_SENTENCE_WORDS - self._words, _MIN_LEFT_WORDS)
        wait_per_s = left_words / max(1, self._words - 1)
        silent_s = self._began_s + early.price_s / wait_per_s  # for a listener who has nothing
        dry_s = self._dry_at_s()
        if dry_s is None or dry_s <= now_s:
            return silent_s
        playing_s = (early.price_s + dry_s + wait_per_s * self._began_s) / (1 + wait_per_s)
        return playing_s if playing_s <= dry_s else max(silent_s, dry_s)
