"""The monotone path through attention, and the times that words get from it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.words.path import MonotonePath
from engines.words.text import Word
from engines.words.timer import Loudness, WordTimer

ONE = [Word(text, i, i + 1, text, i, i + 1) for i, text in enumerate("abc")]  # a token each; the fourth is the stop


def attention(path: list[int], tokens: int, share: float = 0.8) -> np.ndarray:
    """Rows that look at `path`, and a little at everything else."""
    rows = np.full((len(path), tokens), (1 - share) / tokens, np.float32)
    rows[np.arange(len(path)), path] += share
    return rows


@settings(deadline=None)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=20), st.floats(0.4, 1.0), st.data())
def test_the_path_follows_the_attention_in_whatever_pieces_it_comes(
    lengths: list[int], share: float, data: st.DataObject
):
    path = [token for token, length in enumerate(lengths) for _ in range(length)]
    rows = attention(path, len(lengths), share)
    one = MonotonePath(len(lengths))
    at = 0
    while at < len(rows):
        size = data.draw(st.integers(1, len(rows)))
        one.add(rows[at : at + size])
        at += size
    assert one.tokens().tolist() == path
    assert one.position == len(lengths) - 1


def test_a_glance_elsewhere_does_not_move_the_path():
    rows = attention([0, 0, 3, 0, 1, 1, 0, 1, 2, 2, 3, 3], 4)
    path = MonotonePath(4)
    path.add(rows)
    assert path.tokens().tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3]


def test_a_silent_token_is_passed_over():
    path = MonotonePath(5)
    path.add(attention([0, 0, 1, 1, 3, 3, 4], 5))
    assert path.tokens().tolist() == [0, 0, 1, 1, 3, 3, 4]


def test_a_word_is_given_once_its_end_is_known_and_decoded():
    timer = WordTimer(ONE, 4)
    timer.add(attention([0, 0, 0], 4))
    assert timer.take(2, is_last=False) == []
    assert timer.take(3, is_last=False) == []  # it may go on
    assert [each.word.text for each in timer.begun(3)] == ["a"]
    timer.add(attention([1, 1, 2], 4))
    assert timer.take(2, is_last=False) == []  # its end is known, and is not decoded
    first, second = timer.take(5, is_last=False)
    assert (first.start_tokens, first.stop_tokens) == (0, 3)
    assert (second.start_tokens, second.stop_tokens) == (3, 5)
    timer.add(attention([2, 3], 4))
    assert [(each.word.text, each.stop_tokens) for each in timer.take(8, is_last=False)] == [("c", 7)]
    assert timer.take(11, is_last=True) == []


def test_words_that_were_not_reached_get_no_time():
    timer = WordTimer(ONE, 4)
    timer.add(attention([0, 0, 1, 1], 4))
    assert [each.word.text for each in timer.take(7, is_last=True)] == ["a", "b"]


def test_words_never_overlap_and_come_in_order_however_the_path_turns_out():
    rng = np.random.default_rng(0)
    timer, end, count = WordTimer(ONE, 4), 0.0, 0
    for step in range(1, 40):
        timer.add(rng.dirichlet(np.ones(4), 1).astype(np.float32))
        for each in timer.take(step, is_last=step == 39):
            assert end <= each.start_tokens <= each.stop_tokens <= 39
            assert each.word is ONE[count]
            end, count = each.stop_tokens, count + 1


def test_silence_at_a_words_ends_is_not_part_of_it():
    loudness = Loudness()
    loudness.add(np.concatenate([np.full(960, 1e-4), np.full(1920, 0.3), np.full(960, 1e-4)]).astype(np.float32))
    assert loudness.trimmed(0, 3840) == (960, 2880)
    assert loudness.trimmed(0, 960) == (0, 960)
    assert loudness.trimmed(1000, 2000) == (1000, 2000)


def test_a_path_costs_the_same_for_each_row():
    """Ten times the rows are not more than some ten times the work: the path is not made anew for each."""
    path = MonotonePath(50)
    path.add(attention([0] * 500, 50))
    assert len(path) == 500
    assert path.tokens().sum() == pytest.approx(0)
