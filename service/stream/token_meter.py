"""The text tokens of text that is still being received: where a segment has as many as the model speaks well."""

from __future__ import annotations

import re
from collections.abc import Callable

# A word, or a part of 16 letters of a long one; every sign of other scripts is a part. Parts are measured when the text
# behind them shows that they are whole, so that the result does not depend on how the text is fragmented.
_PART_CHARS = 16
_PART = re.compile(rf"\s*(?:[!-~\u00c0-\u024f]{{1,{_PART_CHARS}}}|\S)")


class TokenMeter:
    """Measures one segment after another. Every part is measured once per segment that it is considered for."""

    def __init__(self, count_tokens: Callable[[str], int], max_tokens: int) -> None:
        """`count_tokens` counts the text tokens of one word, with the space before it if it has one."""
        self._count_tokens, self._max_tokens = count_tokens, max_tokens
        self.begin()

    def begin(self) -> None:
        """Measure a new segment."""
        self._measured_chars = self._tokens = 0
        self._fit_chars: int | None = None

    def fit_chars(self, text: str, start: int, max_chars: int, complete: bool) -> int:
        """Returns the characters of the segment that begins at `start` which have at most the maximum of text tokens,
        at least one part and at most `max_chars`.

        Fewer than `max_chars` only if that is certain from the text received; `complete` says that no text follows.
        """
        limit = start + max_chars
        stop = min(len(text), limit)
        while self._fit_chars is None and start + self._measured_chars < stop:
            if text.isascii() and self._tokens + stop - start - self._measured_chars <= self._max_tokens:
                break  # the rest fits: no token has less than a character
            part = _PART.match(text, start + self._measured_chars)
            if part is None or not (complete or part.end() >= limit or _is_whole(text, part)):
                break
            measured = part[0][: limit - part.start()]
            self._tokens += self._count_tokens(measured)
            if self._tokens > self._max_tokens:
                spaces = len(measured) - len(measured.lstrip())
                self._fit_chars = self._measured_chars + spaces if self._measured_chars else len(measured)
            self._measured_chars += len(measured)
        return max_chars if self._fit_chars is None else self._fit_chars


def _is_whole(text: str, part: re.Match[str]) -> bool:
    return part.end() < len(text) or len(part[0].lstrip()) == _PART_CHARS
