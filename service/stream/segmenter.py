"""Segmentation of text that arrives in fragments: into sentences, or clauses where a sentence is long.

A segment is returned as soon as the text after it proves that it has ended.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from service.stream.sentence_ends import Search, find_end
from service.stream.sentences.english import ENGLISH
from service.stream.sentences.rules import SentenceRules
from service.stream.token_meter import TokenMeter

_PIECES = re.compile(r"\S+|\s+")
_LOOKAHEAD_CHARS = 32  # more than any rule looks beyond a stop
MAX_SEGMENT_CHARS = ENGLISH.split_chars
MIN_MAX_CHARS = 20
_MAX_STEPS_BACK = 32  # for a character of many parts, such as a family emoji

_SPACE = re.compile(r"\s")
TAG = re.compile(r"\[[a-z ]{1,24}(?:\]|\Z)")  # paralinguistic tags are words of their own, spaces included


class Segmenter:
    """Cuts one stream's text. The joined segments equal the text up to white space, however it was fragmented.

    No segment is blank or longer than `max_chars`, and none that can be cut has more than `max_tokens` text tokens, as
    counted by `count_tokens` for each word; at most `max_chars` + 32 characters wait for their end. Takes time linear
    in the text.
    """

    def __init__(
        self,
        max_chars: int = MAX_SEGMENT_CHARS,
        max_tokens: int = 1000,
        count_tokens: Callable[[str], int] = len,
        first_end: Callable[[str, int], int | None] = lambda text, stop: None,
        rules: SentenceRules = ENGLISH,
    ) -> None:
        """`first_end` returns where the first segment ends if that is before index `stop` of the text.

        The first one is that of the whole text and of the text after each flush. Raises ValueError if `max_chars` is
        below 20.
        """
        if max_chars < MIN_MAX_CHARS:
            raise ValueError(f"max_chars is {max_chars}; it must be at least {MIN_MAX_CHARS}.")
        self._max_chars, self._rules = max_chars, rules
        self._meter = TokenMeter(count_tokens, max_tokens)
        self._text = ""  # since the last segment's end; runs of white space made one character
        self._scanned = 0  # up to here there is no sentence end in it
        self._spaces = False  # white space came after it
        self._line_feeds = 0  # in that white space
        self._first_end, self._is_first = first_end, True

    def feed(self, fragment: str) -> list[str]:
        """Append a fragment. Returns the segments that it proves to have ended, in order; often none."""
        segments: list[str] = []
        pieces: list[str] = []
        for piece in _PIECES.findall(fragment):
            if not piece.isspace():
                pieces += (self._gap(started=bool(pieces)), piece)
                continue
            self._spaces = True
            self._line_feeds += piece.count("\n")
            if self._line_feeds >= 2:  # an empty line ends a sentence that has no stop, such as a headline
                self._text += "".join(pieces)
                pieces.clear()
                segments += self._cut_all(complete=True)
        self._text += "".join(pieces)
        return segments + self._cut_all(complete=False)

    def flush(self) -> list[str]:
        """Return all that is left, as if the text ended here. Text fed later begins a new segment."""
        segments = self._cut_all(complete=True)
        self._spaces, self._line_feeds = False, 0
        self._is_first = True
        return segments

    def cut(self, end: int) -> str:
        """End the segment that waits at index `end` of `pending`, and return it."""
        segment, self._text = self._text[:end].strip(), self._text[end:].lstrip()
        self._scanned, self._is_first = 0, False
        self._meter.begin()
        return segment

    @property
    def pending(self) -> tuple[str, int]:
        """The text that waits for its segment's end, and the index up to which its sentence certainly has none."""
        return self._text, self._scanned

    @property
    def pending_chars(self) -> int:
        """The characters that wait for their segment's end."""
        return len(self._text)

    def _gap(self, *, started: bool) -> str:
        """The white space to keep before the next word."""
        gap = ("\n" if self._line_feeds else " ") if self._spaces and (started or self._text) else ""
        self._spaces, self._line_feeds = False, 0
        return gap

    def _cut_all(self, *, complete: bool) -> list[str]:
        segments, start = [], 0
        while (length := self._next_length(start, complete)) is not None:
            segments.append(self._text[start : start + length].strip())
            start += length
            start += start < len(self._text) and self._text[start].isspace()
            self._scanned = 0
            self._is_first = False
            self._meter.begin()
        self._text = self._text[start:]
        return segments

    def _next_length(self, start: int, complete: bool) -> int | None:
        """The length of the segment that begins at `start`, or None if it has no end yet or nothing is left."""
        window, full, search = self._search(start, self._max_chars, complete)
        if (
            not self._is_first
            and search.end is not None
            and search.end <= self._max_chars
            and self._meter.fit_chars(self._text, start, search.end, complete) == search.end
        ):
            return search.end  # without a look at the tokens behind it
        max_chars = self._meter.fit_chars(self._text, start, self._max_chars, complete)
        if max_chars < self._max_chars:
            window, full, search = self._search(start, max_chars, complete)
        if self._is_first and window:
            end_at = search.end or (len(window) if complete or full else search.resume)
            first_end = self._first_end(window, min(end_at, max_chars))
            if first_end is not None:
                return first_end
        if search.end is not None and search.end <= max_chars:
            return search.end
        if search.end is None and not (complete or full):
            self._scanned = search.resume
            return None
        if len(window) > max_chars:
            return clause_end(window, max_chars, self._rules)
        return len(window) or None

    def _search(self, start: int, max_chars: int, complete: bool) -> tuple[str, bool, Search]:
        """The text in which the segment at `start` ends, whether it has all that can be looked at, and its end."""
        window = self._text[start : start + max_chars + _LOOKAHEAD_CHARS]
        full = len(window) == max_chars + _LOOKAHEAD_CHARS
        # a full window may end in a space
        return window, full, find_end(window.rstrip(), self._scanned, complete or full, self._rules)


def clause_end(text: str, max_chars: int, rules: SentenceRules = ENGLISH) -> int:
    """The index at which to cut a sentence that is longer than `max_chars`.

    Cuts in the second half of the first `max_chars` characters, at the last semicolon, colon or dash; without these at
    the last comma; without commas before the last conjunction. Otherwise cuts at the last space, or through a word.
    """
    head = text[: max_chars + 1]
    tags = [match.span() for match in TAG.finditer(head)]
    half = max_chars // 2
    clauses = ((rules.strong_clause, half), (rules.comma, half), (rules.conjunction, half))
    for kind, min_end in (*clauses, (_SPACE, 1)):
        ends = [match.end() for match in kind.finditer(head) if min_end <= match.end() <= max_chars]
        outside = [end for end in ends if not any(first < end < last for first, last in tags)]
        if outside:
            return outside[-1]
    return _hard_end(head, max_chars, tags)


def _hard_end(head: str, max_chars: int, tags: list[tuple[int, int]]) -> int:
    for first, last in tags:
        if 0 < first < max_chars < last:
            return first
    for end in range(max_chars, max(0, max_chars - _MAX_STEPS_BACK), -1):
        if not _is_joined(head, end):
            return end
    return max_chars


def _is_joined(text: str, at: int) -> bool:
    """Whether the characters before and after index `at` form one sign, such as an accent or an emoji sequence."""
    after = text[at : at + 1]
    if not after:
        return False
    modifier = unicodedata.category(after) in ("Mn", "Mc", "Me") or "\U0001f3fb" <= after <= "\U0001f3ff"
    return modifier or "\u200d" in (after, text[at - 1])
