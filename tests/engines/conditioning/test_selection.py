"""Tests of choosing a recording's part: a clean one is left as it is, and what is not speech is left out."""

from __future__ import annotations

import numpy as np
import pytest

from engines.audio import Samples, resample
from engines.conditioning.selection import select, without_offset
from engines.conditioning.speech_detector import FRAME_S, speech_probabilities, speech_segments
from engines.errors import InvalidInput
from engines.model_spec import SAMPLE_RATE_HZ
from engines.voice_report import VoiceReport, VoiceWarning
from tests.inputs import recordings


def at_24k(samples: Samples) -> Samples:
    return resample(samples, recordings.RATE_HZ, SAMPLE_RATE_HZ)


@pytest.mark.parametrize("voice", ["slt", "rms", "awb", "kal16"])
def test_a_clean_recording_is_used_sample_by_sample(voice: str) -> None:
    samples = at_24k(recordings.spoken(17.0, voice))
    chosen = select(samples)
    np.testing.assert_array_equal(chosen.samples, samples)
    assert chosen.report.warnings == ()


@pytest.mark.parametrize("before_s", [0.6, 5.0, 30.0])
def test_the_part_begins_just_before_the_first_word(before_s: float) -> None:
    samples = at_24k(recordings.joined(recordings.silence(before_s), recordings.spoken(8.0)))
    report = select(samples).report
    assert before_s - 0.2 < report.used_from_s < before_s + 0.4


def test_speech_is_told_from_everything_else() -> None:
    others = (recordings.music(8.0), recordings.hum(8.0), recordings.tone(8.0), recordings.clicks(8.0))
    for samples in others:
        assert speech_segments(speech_probabilities(at_24k(samples))) == []
        with pytest.raises(InvalidInput) as raised:
            select(at_24k(samples))
        assert raised.value.reason == "AUDIO_TOO_LITTLE_SPEECH"


def test_segments_begin_above_a_half_and_end_below_a_third() -> None:
    probabilities = np.array([0.4] * 5 + [0.9] * 10 + [0.4] * 3 + [0.9] * 2 + [0.1] + [0.9] * 4, np.float32)
    (segment,) = speech_segments(probabilities)
    assert segment == (5 * FRAME_S, 20 * FRAME_S), "the last four frames are a click"


def test_an_offset_is_removed_and_an_ordinary_one_is_not() -> None:
    samples = at_24k(recordings.spoken(6.0))
    shifted, offset = without_offset(samples + np.float32(0.1))
    assert offset == pytest.approx(0.1, abs=0.01)
    assert abs(float(shifted.mean())) < 1e-6
    same, none = without_offset(samples)
    assert none == 0.0
    np.testing.assert_array_equal(same, samples)


def test_a_report_survives_its_metadata() -> None:
    report = VoiceReport(1.5, 8.0, 0.9, 30.0, (VoiceWarning("NOISY", "It is noisy."),), 0.8, "")
    assert VoiceReport.of_metadata(report.in_metadata({"source": "flac"})) == report
    assert VoiceReport.of_metadata({"source": "flac"}) is None
    for malformed in ("{}", "[]", '{"used_from_s": 1}', "no JSON"):
        with pytest.raises(ValueError, match="malformed"):
            VoiceReport.of_metadata({"report": malformed})
