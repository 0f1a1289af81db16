"""Time-scale modification: exact lengths, no seams, the same pitch, whatever pieces the speech comes in."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import InvalidInput
from engines.model_spec import SAMPLE_RATE_HZ
from engines.time_scale import F32, MAX_HELD_SAMPLES, TimeScale, bounded_speed, scaled_samples

speeds = st.floats(0.5, 2.0)
SPEEDS = (0.5, 0.8, 1.25, 1.5, 2.0)


def speech(samples: int, seed: int = 0) -> F32:
    """A voice-like signal: a pitch that glides, harmonics, noise, and silence between its syllables."""
    t = np.arange(samples) / SAMPLE_RATE_HZ
    phase = 2 * np.pi * np.cumsum(120 + 40 * np.sin(2 * np.pi * 0.7 * t)) / SAMPLE_RATE_HZ
    voiced = sum(np.sin(k * phase) / k for k in range(1, 6)) * np.maximum(0, np.sin(2 * np.pi * 3 * t))
    noise = np.random.default_rng(seed).standard_normal(samples) * 0.01
    wave: F32 = (0.2 * voiced + noise).astype(np.float32)
    return wave


def tone(hz: float, samples: int) -> F32:
    wave: F32 = (0.5 * np.sin(2 * np.pi * hz * np.arange(samples) / SAMPLE_RATE_HZ)).astype(np.float32)
    return wave


def in_pieces(samples: F32, speed: float, cuts: list[int]) -> list[F32]:
    scale = TimeScale(speed)
    bounds = [0, *sorted(min(cut, len(samples)) for cut in cuts), len(samples)]
    ends = bounds[1:]
    return [
        scale.feed(samples[start:end], last=number == len(ends) - 1)
        for number, (start, end) in enumerate(zip(bounds, ends, strict=False))
    ]


@settings(deadline=None, max_examples=40)
@given(speeds, st.integers(0, 20_000), st.lists(st.integers(0, 20_000), max_size=12))
def test_the_length_is_exact_and_the_samples_do_not_depend_on_the_pieces(
    speed: float, length: int, cuts: list[int]
) -> None:
    samples = speech(length)
    joined = np.concatenate(in_pieces(samples, speed, cuts))
    assert len(joined) == scaled_samples(length, speed) == round(length / speed)
    assert np.array_equal(joined, np.concatenate(in_pieces(samples, speed, [])))


@settings(deadline=None, max_examples=40)
@given(speeds, st.lists(st.integers(1, 3000), min_size=1, max_size=20))
def test_less_than_40_ms_of_speech_are_held_back(speed: float, pieces: list[int]) -> None:
    assert MAX_HELD_SAMPLES <= 0.040 * SAMPLE_RATE_HZ
    scale, fed, made = TimeScale(speed), 0, 0
    samples = speech(sum(pieces))
    for piece in pieces:
        made += len(scale.feed(samples[fed : fed + piece]))
        fed += piece
        assert fed - made * speed < MAX_HELD_SAMPLES + 1  # one more where a place is rounded
        assert made * speed < fed + 1


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("hz", [80.0, 140.0, 233.0])
def test_the_pitch_stays_and_no_join_is_audible(speed: float, hz: float) -> None:
    out = np.concatenate(in_pieces(tone(hz, 2 * SAMPLE_RATE_HZ), speed, list(range(0, 48_000, 4800))))
    middle = out[2400 : len(out) - 2400]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    peak_hz = np.argmax(spectrum) * SAMPLE_RATE_HZ / len(middle)
    assert peak_hz == pytest.approx(hz, abs=3.0)
    steepest = 0.5 * 2 * math.pi * hz / SAMPLE_RATE_HZ
    assert np.abs(np.diff(middle)).max() < 1.15 * steepest, "a jump is steeper than the tone"
    loud = np.abs(middle[: len(middle) // 240 * 240].reshape(-1, 240)).max(1)
    if hz > 110:  # 10 ms hold a whole period
        assert loud.min() > 0.4, "a join out of phase is quieter"


@pytest.mark.parametrize("speed", SPEEDS)
def test_a_sound_is_heard_where_the_map_of_times_says(speed: float) -> None:
    samples = np.zeros(3 * SAMPLE_RATE_HZ, np.float32)
    for at in (12_000, 30_000, 54_321):
        samples[at : at + 1200] = tone(200.0, 1200)
    out = np.concatenate(in_pieces(samples, speed, [9600, 33_600]))
    loud = np.abs(out) > 0.1
    starts = [int(i) for i in np.flatnonzero(loud) if not loud[max(0, i - 1200) : i].any()]
    assert len(starts) == 3
    for at, start in zip((12_000, 30_000, 54_321), starts, strict=True):
        assert start == pytest.approx(scaled_samples(at, speed), abs=0.030 * SAMPLE_RATE_HZ)


def test_speed_1_is_the_speech_itself() -> None:
    samples = speech(1000)
    assert TimeScale(1.0).feed(samples) is samples
    assert TimeScale(1.0).feed(samples, last=True) is samples


@pytest.mark.parametrize("speed", [0.0, 0.49, 2.01, -1.0, math.inf, math.nan])
def test_other_speeds_are_refused(speed: float) -> None:
    with pytest.raises(InvalidInput, match=r"it must be from 0.5 to 2") as raised:
        TimeScale(speed)
    assert raised.value.reason == "SPEED_OUT_OF_RANGE"


def test_a_product_of_speeds_is_kept_in_the_range() -> None:
    assert [bounded_speed(speed) for speed in (0.2, 0.5, 1.3, 2.0, 3.0)] == [0.5, 0.5, 1.3, 2.0, 2.0]
