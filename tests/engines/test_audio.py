"""Properties of resampling, loudness, PCM, silence trimming and mel filters that hold for every sound."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines import audio

RATES_HZ = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


def noise(length: int, seed: int = 0) -> audio.Samples:
    return np.random.default_rng(seed).standard_normal(length).astype(np.float32) * np.float32(0.1)


def tone(frequency_hz: float, rate_hz: int, duration_s: float, amplitude: float = 1.0) -> audio.Samples:
    times_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    return (amplitude * np.sin(2 * np.pi * frequency_hz * times_s)).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(
    from_hz=st.sampled_from(RATES_HZ),
    to_hz=st.sampled_from(RATES_HZ),
    pieces=st.lists(st.integers(0, 3000), min_size=1, max_size=8),
)
def test_resampling_in_pieces_equals_resampling_at_once(from_hz: int, to_hz: int, pieces: list[int]) -> None:
    samples = noise(sum(pieces))
    stream = audio.StreamResampler(from_hz, to_hz)
    streamed = [stream.push(piece) for piece in np.split(samples, np.cumsum(pieces)[:-1])]
    joined = np.concatenate([*streamed, stream.finish()])
    np.testing.assert_array_equal(joined, audio.resample(samples, from_hz, to_hz))
    assert len(joined) - -(-len(samples) * to_hz // from_hz) in (0, 1)


@pytest.mark.parametrize("resample", [audio.resample, audio.resample_windowed_sinc])
@pytest.mark.parametrize(("from_hz", "to_hz"), [(24_000, 16_000), (16_000, 24_000), (44_100, 24_000)])
def test_resampling_keeps_a_tone(resample, from_hz: int, to_hz: int) -> None:
    expected = tone(1000.0, to_hz, 0.5)
    resampled = resample(tone(1000.0, from_hz, 0.5), from_hz, to_hz)
    assert len(resampled) - len(expected) in (0, 1)
    resampled = resampled[: len(expected)]
    edge = to_hz // 50  # at the ends the filter runs into silence
    np.testing.assert_allclose(resampled[edge:-edge], expected[edge:-edge], atol=0.01)


def test_resampling_removes_frequencies_above_nyquist() -> None:
    for resample in (audio.resample, audio.resample_windowed_sinc):
        resampled = resample(tone(11_000.0, 24_000, 0.5), 24_000, 16_000)
        assert np.abs(resampled[500:-500]).max() < 0.01


def test_loudness_of_the_standards_tone() -> None:
    # BS.1770-4: 997 Hz at 0 dB full scale in one channel measures -3.01 LUFS
    assert audio.loudness_lufs(tone(997.0, 48_000, 3.0), 48_000) == pytest.approx(-3.01, abs=0.05)


@pytest.mark.parametrize("amplitude", [1e-3, 0.05, 1.0, 3.0])
def test_normalized_loudness_is_the_target(amplitude: float) -> None:
    sound = tone(500.0, 24_000, 2.0, amplitude)
    normalized = audio.with_gain(sound, -27.0 - audio.loudness_lufs(sound, 24_000))
    assert normalized.dtype == np.float32
    assert audio.loudness_lufs(normalized, 24_000) == pytest.approx(-27.0, abs=0.01)


@pytest.mark.parametrize("samples", [np.zeros(24_000, np.float32), noise(100), np.zeros(0, np.float32)])
def test_samples_without_loudness_are_unchanged(samples: audio.Samples) -> None:
    assert audio.loudness_lufs(samples, 24_000) == -math.inf
    np.testing.assert_array_equal(audio.with_gain(samples, -27.0 - audio.loudness_lufs(samples, 24_000)), samples)


@pytest.mark.parametrize("gain_db", [math.nan, math.inf, -math.inf, 1e9])
def test_a_gain_that_is_not_a_finite_factor_changes_nothing(gain_db: float) -> None:
    np.testing.assert_array_equal(audio.with_gain(noise(10), gain_db), noise(10))


def test_float_pcm_is_little_endian_and_not_clipped() -> None:
    loud = np.array([1.5, -1.5, 1.0, 0.0], np.float32)
    np.testing.assert_array_equal(np.frombuffer(audio.to_f32le(loud), "<f4"), loud)


def test_trimming_cuts_silence_at_the_ends_and_only_there() -> None:
    loud, quiet = noise(8192), noise(8192, 1) * np.float32(0.01)
    trimmed = audio.trim_silence(np.concatenate([quiet, loud, quiet, loud, quiet]))
    assert 3 * 8192 <= len(trimmed) <= 3 * 8192 + 2 * 2048, "to within one frame on either side"
    np.testing.assert_array_equal(audio.trim_silence(loud), loud)
    np.testing.assert_array_equal(audio.trim_silence(np.zeros(5000, np.float32)), np.zeros(5000))


@pytest.mark.parametrize(("rate_hz", "fft", "bands"), [(16_000, 400, 40), (16_000, 400, 128), (24_000, 1920, 80)])
def test_mel_filters_are_triangles_of_unit_area_in_rising_order(rate_hz: int, fft: int, bands: int) -> None:
    filters = audio.mel_filterbank(rate_hz, fft, bands, 0.0, 8000.0)
    assert filters.shape == (bands, fft // 2 + 1)
    assert (filters >= 0).all()
    assert (np.diff(filters.argmax(axis=1)) >= 0).all()
    wide = filters[-5:].sum(axis=1) * rate_hz / fft  # narrow ones are too coarsely sampled to integrate
    np.testing.assert_allclose(wide, 1.0, atol=0.02)
    with pytest.raises(ValueError, match="read-only"):
        filters[0, 0] = 1.0


def test_power_spectrum_finds_a_tone_and_keeps_its_energy() -> None:
    window = audio.hann_window(400)
    power = audio.power_spectrum(tone(2000.0, 16_000, 0.5), window, 160, 200)
    assert power.shape == (51, 201)
    assert power.dtype == np.float32
    assert (power[2:-2].argmax(axis=1) == 50).all()  # 40 Hz a bin
    np.testing.assert_allclose(power[2:-2].max(axis=1), (window.sum() / 2) ** 2, rtol=1e-3)
