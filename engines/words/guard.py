"""The guard on words: whether a segment's speech says its text, each word once, and ends with it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from engines.words.path import F32
from engines.words.text import Word

Fault = Literal["late_end", "repeated", "invented_tail", "early_stop"]

# in speech tokens of 40 ms
_BACK_ROWS = 6  # of speech that looks back: fewer are glances
_DWELL_ROWS = 3  # at a token or behind it, until it counts as reached: one row ahead may be a glance
_LOST_ROWS = 8  # after the last word that look at nothing in particular
_LATE_ROWS = 30  # after the last word; the longest pause at an end is a third of it
_HELD_ROWS = 60  # in the last word
_SURE = 0.5  # share of the attention that is on one place
_AFTER_END_ROWS = 4  # that stay behind the last word when the speech is stopped there


@dataclass(frozen=True)
class Finding:
    """A fault, the row that showed it, and the row at which the text is complete; None if it is not."""

    fault: Fault
    row: int
    end_row: int | None


class WordGuard:
    """Follows one segment row by row; what it finds depends on nothing but the rows."""

    def __init__(self, words: Sequence[Word], text_tokens: int) -> None:
        self._last_word = words[-1].first_token if words else 0
        self._behind = words[-1].stop_token if words else text_tokens
        self._rows = self._position = self._seen = 0
        self._recent: deque[int] = deque(maxlen=_DWELL_ROWS)
        self._back_rows = self._lost_rows = 0
        self._reached_row: int | None = None  # of the last word
        self._left_row: int | None = None  # the first behind it

    def add(self, row: F32, position: int) -> Finding | None:
        """The next row (text tokens,) and the path's token there. Returns the fault that it shows."""
        number, self._rows = self._rows, self._rows + 1
        self._seen = max(self._seen, position)
        self._recent.append(position)
        if len(self._recent) == _DWELL_ROWS:
            position = self._position = max(self._position, min(self._recent))  # a path that was taken over goes back
            since = number - _DWELL_ROWS + 1
            if position >= self._last_word and self._reached_row is None:
                self._reached_row = since
            if position >= self._behind and self._left_row is None:
                self._left_row = since
        position = self._position
        peak = int(row.argmax())
        self._back_rows = self._back_rows + 1 if peak < position and row[peak] > _SURE else 0
        lost = self._left_row is not None and float(row[self._last_word :].sum()) < _SURE and not self._back_rows
        self._lost_rows = self._lost_rows + 1 if lost else 0
        fault = self._fault(number)
        return None if fault is None else Finding(fault, number, self._end_row(number))

    def _fault(self, number: int) -> Fault | None:
        if self._back_rows == _BACK_ROWS:
            return "repeated"
        if self._lost_rows == _LOST_ROWS:
            return "invented_tail"
        late = self._left_row is not None and number - self._left_row == _LATE_ROWS
        held = self._left_row is None and self._reached_row is not None and number - self._reached_row == _HELD_ROWS
        return "late_end" if late or held else None

    def _end_row(self, number: int) -> int | None:
        """The row behind the last word and the pause after it; None if the last word was not spoken to its end."""
        if self._left_row is not None:
            return min(self._left_row + _AFTER_END_ROWS, number + 1)
        if self._reached_row is not None:
            return max(self._reached_row + 1, number + 1 - max(_BACK_ROWS, self._back_rows))
        return None

    def ended(self) -> Finding | None:
        """T3 has stopped by itself. Returns the fault if words are missing."""
        if self._seen < self._last_word:
            return Finding("early_stop", max(0, self._rows - 1), None)
        return None
