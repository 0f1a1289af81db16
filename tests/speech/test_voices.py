"""A voice made from a clip sounds like the clip's speaker."""

from __future__ import annotations

import numpy as np
import pytest

from engines.conditioning.builder import VoiceBuilder
from engines.model_spec import SAMPLE_RATE_HZ
from engines.voice import Voice
from tests.clips import speech, wav_bytes
from tests.speech.conftest import Offline

VOICES = ("rms", "slt")


def _similarity(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize(("name", "other"), [VOICES, VOICES[::-1]])
def test_other_words_of_a_speaker_are_more_similar_than_another_speaker(
    builder: VoiceBuilder, voices: dict[str, Voice], name: str, other: str
) -> None:
    samples, rate_hz = speech(20.0, name)
    later = builder.build(wav_bytes(samples[10 * rate_hz :], rate_hz), name)
    for vector in ("x_vector", "speaker_embedding"):
        mine = getattr(later, vector)
        assert _similarity(mine, getattr(voices[name], vector)) > 0.9
        assert _similarity(mine, getattr(voices[other], vector)) < 0.6


@pytest.mark.parametrize("name", VOICES)
def test_speech_sounds_like_the_clip(
    builder: VoiceBuilder, voices: dict[str, Voice], of_a_clip: dict[str, Offline], name: str
) -> None:
    spoken = np.concatenate([one.samples for one in of_a_clip[name].renderings[:3]])
    remade = builder.build(wav_bytes(spoken, SAMPLE_RATE_HZ), "remade")
    most_similar = max(VOICES, key=lambda other: _similarity(remade.x_vector, voices[other].x_vector))
    assert most_similar == name
