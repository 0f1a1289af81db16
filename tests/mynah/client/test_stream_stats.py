"""The statistics of a stream on the client's side."""

from __future__ import annotations

import pytest

from mynah.client.events import AudioChunk
from mynah.client.stream_stats import StreamStats


def chunk(samples: int) -> AudioChunk:
    return AudioChunk(0, 0, 0, samples, b"")


def test_figures_of_a_stream():
    stats = StreamStats(24_000)
    stats.text_sent(10.0)
    stats.text_sent(11.0)  # only the first text counts
    stats.chunk_received(chunk(12_000), 10.25)
    stats.chunk_received(chunk(36_000), 11.0)
    assert (stats.ttfa_s, stats.audio_s, stats.chunks) == (0.25, 2.0, 2)
    assert stats.rtf == pytest.approx(0.5)


def test_before_the_first_audio_there_are_no_figures():
    stats = StreamStats(24_000)
    assert (stats.ttfa_s, stats.rtf, stats.audio_s) == (None, None, 0.0)
    stats.text_sent(1.0)
    assert (stats.ttfa_s, stats.rtf) == (None, None)
