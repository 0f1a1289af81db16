"""A voice made from a clip sounds like the clip's speaker."""

from __future__ import annotations

import numpy as np
import pytest

from bench.continuity import pitch_hz, semitones
from engines.conditioning.builder import VoiceBuilder
from engines.model_spec import SAMPLE_RATE_HZ
from tests.clips import wav_bytes
from tests.speech.model import Model
from tests.speech.texts import DECODED, SETS

VOICES = ("heart", "alder")


def _similarity(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize(("name", "other"), [VOICES, VOICES[::-1]])
@pytest.mark.parametrize("vector", ["x_vector", "speaker_embedding"])
def test_a_clone_is_more_similar_to_its_own_voice_than_to_the_other(
    model: Model, name: str, other: str, vector: str
) -> None:
    clone = getattr(model.voices[f"clone of {name}"], vector)
    assert _similarity(clone, getattr(model.voices[name], vector)) > 0.8
    assert _similarity(clone, getattr(model.voices[other], vector)) < 0.6


@pytest.mark.parametrize(("name", "other"), [VOICES, VOICES[::-1]])
def test_a_clones_speech_sounds_like_the_clip(builder: VoiceBuilder, model: Model, name: str, other: str) -> None:
    """By the speaker embedding and by pitch. The x-vector of what tiny itself speaks tells its voices apart no better
    than by chance: that net learned from the teacher's voices alone."""
    spoken, own, others = (
        np.concatenate([one.samples for one in model.spoken(voice, DECODED).renderings])
        for voice in (f"clone of {name}", name, other)
    )
    remade = builder.build(wav_bytes(spoken, SAMPLE_RATE_HZ), "remade").speaker_embedding
    ours, theirs = (_similarity(remade, model.voices[voice].speaker_embedding) for voice in (name, other))
    assert ours > theirs
    pitch, own_pitch, other_pitch = map(_median_pitch_hz, (spoken, own, others))
    assert semitones(pitch, own_pitch) < 2 < semitones(pitch, other_pitch)


def _median_pitch_hz(samples: np.ndarray) -> float:
    pitch = pitch_hz(samples)
    return float(np.median(pitch[pitch > 0]))


@pytest.mark.parametrize("voice", VOICES)
def test_there_is_no_tone_at_the_edge_of_the_spectrum(model: Model, voice: str) -> None:
    """The last bin of the vocoder's Fourier transform: a net that never learned it adds a tone at 12 kHz."""
    for one in model.spoken(voice, SETS["agent"]).renderings:
        power = np.square(np.abs(np.fft.rfft(one.samples)))
        hz = np.fft.rfftfreq(len(one.samples), 1 / SAMPLE_RATE_HZ)
        edge, below = power[hz > 11_950].mean(), power[(hz > 11_500) & (hz <= 11_950)].mean()
        assert power[hz > 11_700].sum() < 0.01 * power.sum()
        assert edge < 10 * below
