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
_HELD_ROWS = 60  # at one place in the last word
_SURE = 0.5  # share of the attention that is on one place
_AFTER_END_ROWS = 4  # that stay behind the last word when the speech is stopped there
_AGAIN_ROWS, _AGAIN = 12, 1.5  # what is said again takes no longer than before, but for this many rows and times


@dataclass(frozen=True)
class Finding:
    """A fault, the row that showed it, and the row at which the text is complete; None if it is not."""

    fault: Fault
    row: int
    end_row: int | None


class WordGuard:
    """Follows one segment row by row; what it finds depends on nothing but the rows."""

    def __init__(self, words: Sequence[Word], text_tokens: int) -> None:
        self._last_word = words[-1].end_token if words else 0
        self._behind = words[-1].stop_token if words else text_tokens
        self._rows = self._seen = 0
        self.position = 0  # the text token that the speech has reached
        self._recent: deque[int] = deque(maxlen=_DWELL_ROWS)
        self._back_rows = self._back_from = self._lost_rows = 0
        self._repeat: _Repeat | None = None  # that goes on, before the last word was reached
        self._reached_row: int | None = None  # of the last word
        self._advanced_row = 0  # at which the position was reached
        self._left_row: int | None = None  # the first behind it

    @property
    def repeats(self) -> bool:
        """Whether the speech has gone back, and has not come further yet."""
        return self._repeat is not None

    def add(self, row: F32, position: int) -> Finding | None:
        """The next row (text tokens,) and the path's token there. Returns the fault that it shows."""
        number, self._rows = self._rows, self._rows + 1
        peak = int(row.argmax())
        sure_of = peak if row[peak] > _SURE else None
        if self._repeat is None:
            self._follow(number, position)
        elif self._repeat.is_over(sure_of):
            self._repeat, self._back_rows = None, 0
        if self._repeat is not None:
            return self._repeat.add(number, sure_of)
        if sure_of is None or sure_of >= self.position:
            self._back_rows = 0
        else:
            self._back_from = self.position if not self._back_rows else self._back_from
            self._back_rows += 1
        lost = self._left_row is not None and float(row[self._last_word :].sum()) < _SURE and not self._back_rows
        self._lost_rows = self._lost_rows + 1 if lost else 0
        fault = self._fault(number)
        end_row = self._end_row(number)
        if fault == "repeated" and end_row is None:
            self.position = self._seen = self._back_from  # a path never goes back: it strays while the speech does
            self._recent.clear()
            self._repeat = _Repeat(number + 1 - _BACK_ROWS, self._back_from, peak)
        return None if fault is None else Finding(fault, number, end_row)

    def _follow(self, number: int, position: int) -> None:
        self._seen = max(self._seen, position)
        self._recent.append(position)
        if len(self._recent) < _DWELL_ROWS:
            return
        since = number - _DWELL_ROWS + 1
        if min(self._recent) > self.position:  # a path that was taken over goes back
            self.position, self._advanced_row = min(self._recent), since
        if self.position >= self._last_word and self._reached_row is None:
            self._reached_row = since
        if self.position >= self._behind and self._left_row is None:
            self._left_row = since

    def _fault(self, number: int) -> Fault | None:
        if self._back_rows == _BACK_ROWS:
            return "repeated"
        if self._lost_rows == _LOST_ROWS:
            return "invented_tail"
        late = self._left_row is not None and number - self._left_row == _LATE_ROWS
        held_since = max(self._reached_row or 0, self._advanced_row)
        held = self._left_row is None and self._reached_row is not None and number - held_since == _HELD_ROWS
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


class _Repeat:
    """Speech that has gone back before the last word, by what it looks at. If it comes further it is over, and says the
    words that are still to come: stopping it would lose them. If it goes back again, or takes too long, it loops."""

    def __init__(self, row: int, begun_from: int, peak: int) -> None:
        """It went back at `row`, from the text token `begun_from`."""
        self._row, self._from = row, begun_from
        self._again_to = peak  # how far it has come again
        self._further_rows = self._behind_rows = 0

    def is_over(self, peak: int | None) -> bool:
        """Whether the speech has come further by the next row, which looks at `peak`."""
        self._further_rows = self._further_rows + 1 if peak is not None and peak > self._from else 0
        return self._further_rows == _DWELL_ROWS

    def add(self, number: int, peak: int | None) -> Finding | None:
        """The same row. Returns the fault if the speech loops; it is to be stopped where it went back."""
        if peak is not None:
            self._behind_rows = self._behind_rows + 1 if peak < self._again_to else 0
            self._again_to = max(self._again_to, peak)
        late = number + 1 - self._row == round(_AGAIN * self._row) + _AGAIN_ROWS
        return Finding("repeated", number, self._row) if late or self._behind_rows == _BACK_ROWS else None
