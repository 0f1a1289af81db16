"""What is measured at the joins of sentences, and of speech at other speeds, on tones whose values are known."""

from __future__ import annotations

import numpy as np
import pytest

from bench.continuity import pitch_hz, semitones, silence_s
from bench.speeds import at_speed, semitones_apart
from engines.model_spec import SAMPLE_RATE_HZ
from engines.time_scale import scaled_samples


def tone(hz: float, seconds: float = 0.5) -> np.ndarray:
    at = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return (0.3 * np.sin(2 * np.pi * hz * at) + 0.1 * np.sin(4 * np.pi * hz * at)).astype(np.float32)


@pytest.mark.parametrize("hz", [80.0, 150.0, 220.0, 350.0])
def test_the_pitch_of_a_voice_is_found_and_noise_has_none(hz: float):
    pitch = pitch_hz(tone(hz))
    assert np.median(pitch[pitch > 0]) == pytest.approx(hz, rel=0.02)
    noise = np.random.default_rng(0).standard_normal(12_000).astype(np.float32)
    assert np.mean(pitch_hz(noise) > 0) < 0.1
    assert semitones(hz, 2 * hz) == pytest.approx(12)


def test_silence_is_measured_to_ten_milliseconds():
    assert silence_s(np.concatenate([np.zeros(7200, np.float32), tone(150)])) == pytest.approx(0.3, abs=0.011)


@pytest.mark.parametrize("speed", [0.5, 0.75, 1.25, 2.0])
def test_another_speed_keeps_the_pitch_and_has_its_length(speed: float):
    speech = tone(150.0, 1.0)
    changed = at_speed(speech, speed)
    assert len(changed) == scaled_samples(len(speech), speed)
    assert abs(semitones_apart(speech, changed)) < 0.3
