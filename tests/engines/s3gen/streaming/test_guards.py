"""What is rejected, and that speech is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.model_spec import SAMPLES_PER_TOKEN, SILENCE_SPEECH_TOKEN
from engines.s3gen.streaming.guards import Guard, WindowRejected

CODES = [17] * 25


def noise(level: float, tokens: int = 25) -> np.ndarray:
    return (level * np.random.default_rng(1).standard_normal(tokens * SAMPLES_PER_TOKEN)).astype(np.float32)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_no_audio_are_rejected(bad: float) -> None:
    samples = noise(0.1)
    samples[1000] = bad
    with pytest.raises(WindowRejected, match="not finite"):
        Guard().samples(3, samples, CODES)
    with pytest.raises(WindowRejected, match="not finite"):
        Guard().mel(3, np.full((4, 80), bad, np.float32))


def test_speech_tokens_that_come_out_silent_are_rejected_but_pauses_are_not() -> None:
    silent = noise(0.0)
    with pytest.raises(WindowRejected, match="silent"):
        Guard().samples(0, silent, CODES)
    Guard().samples(0, silent, [SILENCE_SPEECH_TOKEN] * 25)
    Guard().samples(0, silent[: 3 * SAMPLES_PER_TOKEN], CODES[:3])


def test_a_burst_of_noise_is_rejected_and_does_not_move_the_measure() -> None:
    guard = Guard()
    guard.samples(0, noise(0.01, 50), CODES * 2)
    for _ in range(2):
        with pytest.raises(WindowRejected, match="louder"):
            guard.samples(1, noise(0.5), CODES)
    guard.samples(1, noise(0.05), CODES)


@given(st.lists(st.sampled_from([1e-5, 1e-4, 1e-3, 0.03, 0.1, 0.2]), min_size=2, max_size=12))
def test_speech_may_rise_from_any_pause_once_it_has_been_heard(levels: list[float]) -> None:
    guard = Guard()
    guard.samples(0, noise(0.1), CODES)
    for index, level in enumerate(levels):
        guard.samples(index + 1, noise(level), CODES)


def test_the_first_words_may_begin_as_softly_as_they_like() -> None:
    guard = Guard()
    guard.samples(0, noise(1e-4, 10), CODES[:10])
    guard.samples(1, noise(0.2), CODES)
