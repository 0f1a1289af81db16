"""Voices are kept, and sounds that a voice detector takes for voices are not: a table of both."""

from __future__ import annotations

import numpy as np
import pytest

from engines.audio import Samples, resample
from engines.conditioning.selection import MIN_SPEECH_S, select
from engines.conditioning.spectral_change import HOP_S, changing
from engines.conditioning.speech_detector import speech_probabilities, speech_segments
from engines.errors import InvalidInput
from engines.model_spec import SAMPLE_RATE_HZ
from tests.clips import VOICES, speech
from tests.engines.conditioning.sounds import LIKE_A_VOICE, OTHERS, RATE_HZ, made, with_noise

NOISE_DB = (None, 20.0, 10.0, 5.0)


def at_the_models_rate(samples: Samples) -> Samples:
    return resample(samples, RATE_HZ, SAMPLE_RATE_HZ)


@pytest.mark.parametrize("noise_db", NOISE_DB)
@pytest.mark.parametrize("voice", VOICES)
def test_no_frame_of_a_voice_is_lost(voice: str, noise_db: float | None) -> None:
    samples = with_noise(speech(12.0, voice)[0], noise_db)
    everything = np.ones(int(12.0 / HOP_S), bool)
    assert changing(samples, everything).all()


@pytest.mark.parametrize("voice", VOICES)
def test_a_voice_in_noise_is_used(voice: str) -> None:
    report = select(at_the_models_rate(with_noise(speech(8.0, voice)[0], 10.0))).report
    assert report.used_s > 7.0
    assert report.speech_share > 0.75


def test_a_clip_that_was_looped_is_still_a_voice() -> None:
    looped = np.tile(speech(4.0, "rms")[0], 3)
    assert changing(looped, np.ones(int(12.0 / HOP_S), bool)).all()


@pytest.mark.parametrize("noise_db", [None, 40.0])
@pytest.mark.parametrize("sound", LIKE_A_VOICE)
def test_what_the_detector_takes_for_a_voice_is_none(sound: str, noise_db: float | None) -> None:
    samples = at_the_models_rate(made(sound, noise_db))
    with pytest.raises(InvalidInput, match="too little speech") as caught:
        select(samples)
    assert caught.value.reason == "AUDIO_TOO_LITTLE_SPEECH"


def test_the_detector_alone_takes_them_for_voices() -> None:
    """Otherwise the table above would show nothing."""
    fooled = 0
    for sound in LIKE_A_VOICE:
        segments = speech_segments(speech_probabilities(at_the_models_rate(made(sound))))
        fooled += sum(end - begin for begin, end in segments) >= MIN_SPEECH_S
    assert fooled >= 0.7 * len(LIKE_A_VOICE)


@pytest.mark.parametrize("sound", OTHERS)
def test_other_sounds_are_no_voices(sound: str) -> None:
    with pytest.raises(InvalidInput, match="too little speech"):
        select(at_the_models_rate(made(sound)))


def test_speech_behind_a_chord_is_what_is_used() -> None:
    chord = made("a tremolo at 130 Hz")
    report = select(at_the_models_rate(np.concatenate([chord, np.zeros(RATE_HZ, np.float32), speech(8.0)[0]]))).report
    assert report.used_from_s > 7.5
    assert report.used_s > 7.0
