"""The tiny model's codes: a bijection in which silence is silence, and no two places of a segment share an onset."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tools.tiny import codes
from tools.tiny.codes import BEGINS, COUNTERS, PHONES, Rows
from tools.tiny.engine import SILENCE_SPEECH_TOKEN, SPEECH_CODES

_LONGEST_SEGMENT = 62  # text tokens


def test_groups_and_factors_come_back_from_their_code_and_no_two_share_one() -> None:
    meant = codes.join(*codes.parts(np.arange(SPEECH_CODES))) == np.arange(SPEECH_CODES)
    assert meant.sum() == codes.MEANINGS
    ids = np.arange(SPEECH_CODES)[meant]
    assert len(np.unique(codes.join(*codes.parts(ids)))) == codes.MEANINGS


def test_the_silence_token_is_a_pause_and_so_is_every_code_without_a_meaning() -> None:
    heard = codes.sounds_of(np.arange(SPEECH_CODES))
    assert heard[SILENCE_SPEECH_TOKEN] == codes.SILENT_SOUND
    meant = codes.join(*codes.parts(np.arange(SPEECH_CODES))) == np.arange(SPEECH_CODES)
    assert np.all(heard[~meant] == codes.SILENT_SOUND)


def test_every_sound_has_a_code() -> None:
    sounds = np.arange(codes.SOUNDS)
    assert np.array_equal(codes.sounds_of(codes.code_of_sound(sounds)), sounds)


def test_the_teachers_phones_all_have_one_of_the_codes() -> None:
    assert codes.phone_of(np.arange(len(codes.ALPHABET))).tolist() == [
        PHONES.index(letter.replace("ɐ", "ə")) for letter in codes.ALPHABET
    ]


@given(st.integers(0, 400))
def test_no_two_text_tokens_of_a_segment_share_the_code_of_an_onset(first: int) -> None:
    units = first + np.arange(_LONGEST_SEGMENT)
    same = np.ones(len(units), np.int64)
    rows = Rows(same, units, same.astype(bool), 0 * same)
    assert len(np.unique(codes.encode(rows))) == _LONGEST_SEGMENT <= COUNTERS


def test_onsets_say_phone_and_place_and_what_goes_on_says_its_pitch() -> None:
    vowel = codes.FIRST_VOWEL + 3
    rows = Rows(
        np.array([5, 5, vowel, vowel]), np.array([70, 70, 71, 71]), np.array([1, 0, 1, 0], bool), np.array([0, 2, 0, 2])
    )
    group, index = codes.parts(codes.encode(rows))
    assert group.tolist() == [BEGINS, codes.CONSONANT_GOES_ON, BEGINS, codes.VOWEL_GOES_ON]
    assert index.tolist() == [[5, 6, -1], [4, 6, -1], [vowel, 7, -1], [3, 7, 2]]
    phone, counter, begins = codes.meaning(group, index)
    assert phone.tolist() == [5, 5, vowel, vowel]
    assert counter.tolist() == [6, -1, 7, 7]
    assert begins.tolist() == [True, False, True, False]
