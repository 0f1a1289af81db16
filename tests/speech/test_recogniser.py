"""Tests of the recogniser that measures intelligibility."""

from __future__ import annotations

import io
import wave

import numpy as np
import pytest

from tests.clips import spoken_wav
from tests.speech.recogniser import F32, RATE_HZ, errors, longest_deletion, recognise, speech_duration_s, words

_TEXTS = (
    "The weather will be warm and sunny for the rest of the week.",
    "Please leave your name and number after the tone.",
    "She opened the window and looked out over the garden.",
    "We have to be at the station before seven in the morning.",
)


def _by_flite(text: str, voice: str) -> F32:
    with wave.open(io.BytesIO(spoken_wav(text, voice))) as file:
        assert file.getframerate() == RATE_HZ
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


@pytest.mark.parametrize("voice", ["rms", "slt"])
def test_it_understands_an_independent_synthesiser(voice: str) -> None:
    wrong = sum(errors(words(text), recognise(_by_flite(text, voice), RATE_HZ)) for text in _TEXTS)
    assert wrong <= 0.1 * sum(len(words(text)) for text in _TEXTS)


def test_it_finds_no_words_in_noise() -> None:
    noise = np.random.default_rng(0).standard_normal(3 * RATE_HZ).astype(np.float32) * 0.1
    expected = words(" ".join(_TEXTS))
    assert errors(expected, recognise(noise, RATE_HZ)) >= len(expected) - 2


@pytest.mark.parametrize(
    ("recognised", "count"), [("a b c", 0), ("a c", 1), ("a x c", 1), ("a b c d", 1), ("", 3), ("c b a", 2)]
)
def test_errors_are_insertions_deletions_and_substitutions(recognised: str, count: int) -> None:
    assert errors(["a", "b", "c"], recognised.split()) == count


@pytest.mark.parametrize(
    ("recognised", "count"), [("a b c d e", 0), ("a e", 3), ("a x y z e", 0), ("a x e", 2), ("c d e", 2), ("", 5)]
)
def test_the_longest_deletion_is_a_run_of_words_without_counterpart(recognised: str, count: int) -> None:
    assert longest_deletion(list("abcde"), recognised.split()) == count


def test_the_duration_of_speech_leaves_out_silence_around_it() -> None:
    speech = np.concatenate(
        [np.zeros(8_000), 0.1 * np.ones(16_000), np.zeros(4_000), 0.1 * np.ones(1_600), np.zeros(99)]
    )
    assert speech_duration_s(speech.astype(np.float32), RATE_HZ) == pytest.approx(1.35, abs=0.011)
    assert speech_duration_s(np.zeros(RATE_HZ, np.float32), RATE_HZ) == 0
