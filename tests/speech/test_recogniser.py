"""Tests of the recogniser that measures intelligibility."""

from __future__ import annotations

import numpy as np
import pytest

from tests.speech.recogniser import RATE_HZ, SENTENCES, errors, recognise, spoken_by_flite, word_error_rate, words


@pytest.mark.parametrize("voice", ["rms", "slt"])
def test_it_understands_the_teachers(voice: str) -> None:
    """Over all 40 sentences, rms and slt are below 0.05; a few sentences show that the recogniser works."""
    assert word_error_rate([(text, spoken_by_flite(text, voice)) for text in SENTENCES[:4]], RATE_HZ) <= 0.1


def test_it_finds_no_words_in_noise() -> None:
    noise = np.random.default_rng(0).standard_normal(3 * RATE_HZ).astype(np.float32) * 0.1
    assert errors(words(SENTENCES[0]), recognise(noise, RATE_HZ)) >= 10


@pytest.mark.parametrize(
    ("recognised", "count"), [("a b c", 0), ("a c", 1), ("a x c", 1), ("a b c d", 1), ("", 3), ("c b a", 2)]
)
def test_errors_are_insertions_deletions_and_substitutions(recognised: str, count: int) -> None:
    assert errors(["a", "b", "c"], recognised.split()) == count
