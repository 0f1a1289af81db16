"""The real watermark on streamed speech: detection, joins and CPU time."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import soxr

from engines.api import Samples
from service.audio.watermark import PerthMarker, StreamMark
from tests.clips import speech


@pytest.fixture(scope="module")
def marker() -> PerthMarker:
    return PerthMarker()


@pytest.fixture(scope="module")
def spoken() -> Samples:
    samples, rate_hz = speech(12.0)
    resampled: Samples = soxr.resample(samples, rate_hz, 24_000)
    return resampled


def confidence(marker: PerthMarker, samples: Samples) -> float:
    """The confidence of the package's detector, 0 to 1."""
    perth: Any = marker._perth
    resampled = soxr.resample(samples, 24_000, 32_000)
    return float(np.mean(perth.get_watermark(resampled, sample_rate=32_000, round=False)))


def streamed(marker: PerthMarker, samples: Samples, first: int, hop: int) -> Samples:
    mark, start, size, out = StreamMark(marker), 0, first, []
    while start < len(samples):
        out.append(mark.mark(samples[start : start + size]))
        start, size = start + size, hop
    return np.concatenate(out)


@pytest.mark.parametrize(("first", "hop"), [(9_600, 24_000), (9_600, 48_000), (9_600, 9_600)])
def test_the_mark_is_detected_in_streamed_speech(marker: PerthMarker, spoken: Samples, first: int, hop: int):
    marked = streamed(marker, spoken, first, hop)
    assert len(marked) == len(spoken)
    assert confidence(marker, marked) > 0.9
    assert confidence(marker, spoken) < 0.1


def test_the_mark_is_detected_in_any_three_seconds(marker: PerthMarker, spoken: Samples):
    marked = streamed(marker, spoken, 9_600, 24_000)
    for start in range(0, len(spoken) - 72_000, 24_000):
        assert confidence(marker, marked[start : start + 72_000]) > 0.9


def test_joins_are_no_rougher_than_the_speech_itself(marker: PerthMarker, spoken: Samples):
    marked = streamed(marker, spoken, 9_600, 9_600)
    joins = np.arange(9_600, len(spoken), 9_600)
    steps = np.abs(np.diff(marked))
    np.testing.assert_allclose(steps[joins - 1], np.abs(np.diff(spoken))[joins - 1], atol=1e-6)


def test_marking_keeps_up_with_speech(marker: PerthMarker, spoken: Samples, capsys: pytest.CaptureFixture[str]):
    began_s = time.process_time()
    streamed(marker, spoken, 9_600, 24_000)
    cost = (time.process_time() - began_s) / (len(spoken) / 24_000)
    with capsys.disabled():
        print(f"\nwatermark: {cost:.2f} s of CPU per second of audio")
    assert cost < 2.0
