"""The tiny model's codes: a bijection in which silence is silence, and every phone gets a token of its own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.model_spec import SILENCE_SPEECH_TOKEN, SPEECH_CODES
from tools.tiny import codes
from tools.tiny.codes import COUNTERS, PHONES, STATES, VOICES, Timed


def test_sounds_and_counters_come_back_from_their_code_and_no_two_share_one() -> None:
    sounds = np.arange(len(PHONES) * VOICES * STATES).repeat(COUNTERS)
    counters = np.tile(np.arange(COUNTERS), len(PHONES) * VOICES * STATES)
    encoded = codes.encode(sounds, counters)
    assert len(np.unique(encoded)) == len(sounds)
    assert encoded.min() >= 0
    assert encoded.max() < SPEECH_CODES
    back = codes.decode(encoded)
    assert np.array_equal(back[0], sounds)
    assert np.array_equal(back[1], counters)


def test_the_silence_token_is_a_pause_and_so_is_every_code_without_a_meaning() -> None:
    sounds, _ = codes.decode(np.arange(SPEECH_CODES))
    pause = PHONES.index("pau")
    assert sounds[SILENCE_SPEECH_TOKEN] // (VOICES * STATES) == pause
    meant = np.isin(np.arange(SPEECH_CODES), codes.encode(sounds, codes.decode(np.arange(SPEECH_CODES))[1]))
    assert np.all(sounds[~meant] // (VOICES * STATES) == pause)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=30), st.integers(0, 8))
def test_every_phone_has_a_token_and_they_follow_in_order(frames: list[int], spare: int) -> None:
    starts = np.cumsum([0, *frames[:-1]])
    phones = [Timed(i % len(PHONES), int(start), i) for i, start in enumerate(starts)]
    count = max(len(phones), -(-int(sum(frames)) // 2)) + spare
    sounds, units = codes.tokens_of(phones, count)
    assert len(sounds) == count
    assert list(dict.fromkeys(units)) == list(range(len(phones)))
    begins = np.flatnonzero(np.diff(units, prepend=-1))
    assert np.all(sounds[begins] % STATES <= codes.LATE)
    others = np.setdiff1d(np.arange(count), begins)
    assert np.all(sounds[others] % STATES > codes.LATE)


def test_a_phone_that_begins_in_the_middle_of_a_token_says_so() -> None:
    sounds, units = codes.tokens_of([Timed(0, 0, 0), Timed(1, 3, 1), Timed(2, 8, 2)], 6)
    assert units.tolist() == [0, 1, 1, 1, 2, 2]
    assert (sounds % STATES).tolist() == [codes.EARLY, codes.LATE, 2, 3, codes.EARLY, 2]


def test_a_sound_in_another_voice_keeps_its_phone_and_state() -> None:
    sounds = np.arange(len(PHONES) * VOICES * STATES)
    other = codes.spoken_by(sounds, 1)
    assert np.array_equal(other // (VOICES * STATES), sounds // (VOICES * STATES))
    assert np.array_equal(other % STATES, sounds % STATES)
    assert np.all(other // STATES % VOICES == 1)


def test_too_many_phones_for_the_time_are_refused() -> None:
    with pytest.raises(ValueError, match="3 phones in 2 tokens"):
        codes.tokens_of([Timed(0, 0, 0), Timed(1, 1, 0), Timed(2, 2, 0)], 2)
