"""The teacher's durations -> one row for each 40 ms: the phone that is heard, its text token, whether it begins.

Knows where a phone before a pause ends; knows no codes and no net.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tools.tiny.codes import ALPHABET, PAUSE, VOWELS, Rows, phone_of, pitch_of
from tools.tiny.pronounce import MARKS, SPACE, SPOKEN
from tools.tiny.teacher import F0_FRAME_S, FRAME_S

ROW_S = 0.04
_SILENCE = ALPHABET.index(PAUSE)
_VOWELS = VOWELS + "ɐ"
_LEAD_S, _TAIL_S = 0.08, 0.12  # of silence that stays
_HELD_VOWEL_S, _HELD_S = 0.20, 0.14  # of a phone before a pause; the teacher gives it the pause too
_EARLY = 0.25  # of a row: how far a phone's begin may lie before the row's


@dataclass(frozen=True)
class Timed:
    """A letter of ALPHABET that begins at a time and speaks text token `unit`."""

    letter: int
    unit: int
    start_s: float


@dataclass(frozen=True)
class Spoken:
    """Rows (n,), their text tokens counted from 0, and when the first begins in the teacher's sound."""

    letter: npt.NDArray[np.int64]
    unit: npt.NDArray[np.int64]
    begins: npt.NDArray[np.bool_]
    f0_hz: npt.NDArray[np.float32]
    begin_s: float = 0.0

    def __len__(self) -> int:
        return len(self.letter)

    def rows(self, first: int) -> Rows:
        """The first text token at position `first` of T3's sequence."""
        return Rows(phone_of(self.letter), self.unit + first, self.begins, pitch_of(self.f0_hz))


def spoken(
    characters: list[tuple[str, int]], frames: npt.NDArray[np.int64], f0_hz: npt.NDArray[np.float32]
) -> Spoken | None:
    """characters as in Pronounced, frames for each and for the ids around them. None where nothing ends in silence."""
    phones = timed_phones(characters, frames)
    return None if phones[-1].letter else _to_rows(phones, float(np.sum(frames)) * FRAME_S, f0_hz)


def timed_phones(characters: list[tuple[str, int]], frames: npt.NDArray[np.int64]) -> list[Timed]:
    """Phones and pauses as the teacher times them, not rounded to rows."""
    starts_s = np.concatenate([[0], np.cumsum(frames)]) * FRAME_S
    return _held(_timeline(characters, starts_s[1:-1]))


def _timeline(characters: list[tuple[str, int]], starts_s: npt.NDArray[np.float64]) -> list[Timed]:
    """Phones and pauses; the time of a space or a mark of stress goes to the phone behind it."""
    phones = [Timed(_SILENCE, 0, 0.0)]
    open_s: float | None = None
    for (c, unit), start in zip(characters, starts_s[: len(characters)].tolist(), strict=True):
        if c in MARKS:
            if phones[-1].letter:
                phones.append(Timed(_SILENCE, unit, start))
            open_s = None
        elif c in SPOKEN:
            phones.append(Timed(ALPHABET.index(c), unit, start if open_s is None else open_s))
            open_s = None
        elif open_s is None and not (c == SPACE and phones[-1].letter == _SILENCE):
            open_s = start
    return phones


def _held(phones: list[Timed]) -> list[Timed]:
    """Pauses begin when the phone before them has been held long enough."""
    made = phones[:1]
    for before, one in pairwise(phones):
        if one.letter == _SILENCE and before.letter:
            most_s = _HELD_VOWEL_S if ALPHABET[before.letter] in _VOWELS else _HELD_S
            one = replace(one, start_s=min(one.start_s, before.start_s + most_s))
        made.append(one)
    return made


def _to_rows(phones: list[Timed], end_s: float, f0_hz: npt.NDArray[np.float32]) -> Spoken:
    """Every phone gets a row at least; pauses shorter than a row vanish; both ends are trimmed."""
    bounds = [*(phone.start_s for phone in phones[1:]), end_s]
    kept = [one for one, after in zip(phones, bounds, strict=True) if one.letter or after - one.start_s >= ROW_S]
    begin_s = 0.0
    if kept[0].letter == _SILENCE:
        begin_s = max(0.0, kept[1].start_s - _LEAD_S)
        kept[0] = Timed(_SILENCE, kept[1].unit, begin_s)
    if kept[-1].letter == _SILENCE:
        end_s = min(end_s, kept[-1].start_s + _TAIL_S)
    first = _first_rows(np.array([one.start_s - begin_s for one in kept]) / ROW_S)
    count = max(1, round((end_s - begin_s) / ROW_S), int(first[-1]) + 1)
    owner = np.searchsorted(first, np.arange(count), side="right") - 1
    table = np.array([(one.letter, one.unit) for one in kept])[owner]
    return Spoken(table[:, 0], table[:, 1], np.arange(count) == first[owner], _pitch(f0_hz, begin_s, count), begin_s)


def _first_rows(exact: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The row at which each phone begins, each later than the one before."""
    first = np.floor(exact + _EARLY).astype(np.int64)
    first[0] = 0
    for i in range(1, len(first)):
        first[i] = max(first[i], first[i - 1] + 1)
    return first


def _pitch(f0_hz: npt.NDArray[np.float32], begin_s: float, count: int) -> npt.NDArray[np.float32]:
    """The highest f0 around the middle of each row."""
    at = ((begin_s + (np.arange(count) + 0.5) * ROW_S) / F0_FRAME_S).astype(int)
    return np.array([f0_hz[max(0, a - 1) : a + 3].max(initial=0) for a in at.tolist()], np.float32)
