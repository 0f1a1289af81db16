"""The guard on words, row by row: each fault at the row that proves it, and none in speech that is right."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.words.guard import Finding, WordGuard
from engines.words.path import MonotonePath
from engines.words.text import Word

WORDS = [Word(text, i, i + 1, text, i, i + 1) for i, text in enumerate("abcd")]
TOKENS = 5  # the last is the full stop
RIGHT = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]


def rows(path: list[int | None]) -> np.ndarray:
    """Attention on each row's token; None: on nothing in particular."""
    made = np.full((len(path), TOKENS), 0.02, np.float32)
    for number, token in enumerate(path):
        if token is not None:
            made[number, token] = 0.9
    return made


def findings(path: list[int | None], *, stopped: bool = True) -> list[Finding]:
    guard, followed, found = WordGuard(WORDS, TOKENS), MonotonePath(TOKENS), []
    for row in rows(path):
        followed.add(row[None])
        found.append(guard.add(row, followed.position))
    found.append(guard.ended() if stopped else None)
    return [each for each in found if each is not None]


@settings(deadline=None)
@given(st.lists(st.integers(1, 12), min_size=TOKENS, max_size=TOKENS))
def test_right_speech_has_no_fault_at_any_speed(lengths: list[int]):
    assert findings([token for token, length in enumerate(lengths) for _ in range(length)]) == []


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        (RIGHT + [4] * 60, "late_end"),
        (RIGHT[:12] + [3] * 60, "late_end"),
        (RIGHT[:9] + RIGHT[:9] + RIGHT[9:], "repeated"),
        (RIGHT + RIGHT, "repeated"),
        (RIGHT + [3] * 8 + [4] * 3, "repeated"),
        (RIGHT + [None] * 20, "invented_tail"),
        (RIGHT[:6], "early_stop"),
        ([0], "early_stop"),
    ],
)
def test_each_fault_is_found_and_named(path: list[int | None], fault: str):
    assert fault in [each.fault for each in findings(path)]


def test_speech_is_stopped_right_behind_the_text():
    for tail in ([4] * 60, [None] * 20, RIGHT):
        found = findings(RIGHT + tail)[0]
        assert found.end_row is not None
        assert RIGHT.index(4) <= found.end_row <= RIGHT.index(4) + 5


def test_where_words_are_still_to_come_there_is_no_end():
    assert findings(RIGHT[:9] + RIGHT[:9], stopped=False)[0].end_row is None


def test_speech_that_goes_back_once_is_not_stopped():
    """It still says the words that are to come."""
    found = findings(RIGHT[:9] + RIGHT[:9] + RIGHT[9:])
    assert [(each.fault, each.end_row) for each in found] == [("repeated", None)]


@pytest.mark.parametrize(
    "tail",
    [RIGHT[:8] * 5, [0] * 60, RIGHT[:6] + [None] * 40, RIGHT[:6] + [1] * 40],
    ids=["again and again", "stuck at the start", "lost on the way", "stuck on the way"],
)
def test_speech_that_comes_no_further_is_stopped_where_it_went_back(tail: list[int | None]):
    first, second, *_ = findings(RIGHT[:9] + tail, stopped=False)
    assert (first.fault, first.end_row) == ("repeated", None)
    assert (second.fault, second.end_row) == ("repeated", 9)
    assert second.row < 9 + 1.5 * 9 + 12


def test_an_end_that_was_cut_is_not_called_an_early_stop():
    assert findings(RIGHT[:6], stopped=False) == []


LONG = [Word("is", 0, 2, "is", 0, 1), Word("$123", 3, 7, "one hundred twenty three", 1, 5, last_token=4)]


def long_findings(path: list[int | None]) -> list[Finding]:
    guard, followed = WordGuard(LONG, TOKENS + 1), MonotonePath(TOKENS + 1)
    found = []
    for row in np.pad(rows(path), ((0, 0), (0, 1)), constant_values=0.02):
        followed.add(row[None])
        found.append(guard.add(row, followed.position))
    found.append(guard.ended())
    return [each for each in found if each is not None]


def test_a_last_word_that_is_spoken_as_several_may_take_its_time():
    assert long_findings([0] * 5 + [1] * 20 + [2] * 20 + [3] * 20 + [4] * 50) == []


def test_an_early_stop_within_such_a_word_is_found():
    assert [each.fault for each in long_findings([0] * 5 + [1] * 20 + [2] * 5)] == ["early_stop"]


def test_such_a_word_is_not_complete_where_speech_goes_back_in_it():
    (found,) = long_findings([0] * 5 + [1] * 10 + [2] * 10 + [1] * 10 + [2] * 8 + [3] * 8 + [4] * 8)
    assert (found.fault, found.end_row) == ("repeated", None)
