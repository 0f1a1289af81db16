"""The listener's stopwatch."""

from __future__ import annotations

import pytest

from mynah.cli.meter import Meter
from mynah.client.events import AudioChunk


def chunk(samples: int) -> AudioChunk:
    return AudioChunk(0, 0, 0, samples, b"")


def test_figures_of_a_stream():
    meter = Meter(24_000)
    meter.start(10.0)
    meter.start(11.0)  # only the first text counts
    meter.hear(chunk(12_000), 10.25)
    meter.hear(chunk(36_000), 11.0)
    assert (meter.ttfa_s, meter.audio_s, meter.chunks) == (0.25, 2.0, 2)
    assert meter.rtf == pytest.approx(0.5)


def test_before_there_was_audio_there_are_no_figures():
    meter = Meter(24_000)
    assert (meter.ttfa_s, meter.rtf, meter.audio_s) == (None, None, 0.0)
    meter.start(1.0)
    assert (meter.ttfa_s, meter.rtf) == (None, None)
