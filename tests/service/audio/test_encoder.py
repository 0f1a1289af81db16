"""Encoding: exact sample counts at every rate, streamed equals one pass, formats as the contract says."""

from __future__ import annotations

import io
import wave

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import EngineFailure, InvalidInput
from service.audio.codecs import pcm_s16le
from service.audio.encoder import Encoded, Encoder
from service.audio.formats import SAMPLE_RATES_HZ, AudioFormat, AudioSettings

F32LE = AudioFormat.PCM_F32LE


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.2 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def data_of(*pieces: Encoded) -> bytes:
    return b"".join(packet.data for piece in pieces for packet in piece.packets)


def encode_segment(encoder: Encoder, samples: np.ndarray, cuts: list[int]) -> list[Encoded]:
    pieces = [encoder.encode(piece) for piece in np.split(samples, sorted(cuts))]
    return [*pieces, encoder.end_segment()]


@pytest.mark.parametrize("rate_hz", SAMPLE_RATES_HZ)
@given(lengths=st.lists(st.integers(0, 3000), min_size=1, max_size=5), data=st.data())
@settings(max_examples=25, deadline=None)
def test_after_every_segment_the_count_is_exact(rate_hz: int, lengths: list[int], data: st.DataObject):
    encoder = Encoder(AudioSettings(F32LE, rate_hz))
    in_samples = out_samples = 0
    for length in lengths:
        cuts = data.draw(st.lists(st.integers(0, length), max_size=4))
        for piece in encode_segment(encoder, noise(length), cuts):
            assert len(data_of(piece)) == 4 * piece.samples
            out_samples += piece.samples
        in_samples += length
        assert out_samples == int(in_samples * rate_hz / 24_000 + 0.5)


@pytest.mark.parametrize("rate_hz", SAMPLE_RATES_HZ)
def test_streamed_equals_one_pass(rate_hz: int):
    samples = noise(48_000)
    pieces = encode_segment(Encoder(AudioSettings(F32LE, rate_hz)), samples, [1, 480, 481, 9_600, 30_000])
    streamed = np.frombuffer(data_of(*pieces), "<f4")
    once = samples if rate_hz == 24_000 else soxr.resample(samples, 24_000, rate_hz, quality="HQ")
    np.testing.assert_allclose(streamed, once, atol=1e-6)


@pytest.mark.parametrize("rate_hz", SAMPLE_RATES_HZ)
def test_a_segment_does_not_depend_on_the_one_before(rate_hz: int):
    settings_ = AudioSettings(F32LE, rate_hz)
    encoder = Encoder(settings_)
    encode_segment(encoder, noise(4800, seed=1), [])
    second = encode_segment(encoder, noise(4800, seed=2), [])
    alone = encode_segment(Encoder(settings_), noise(4800, seed=2), [])
    assert second == alone


def test_a_tone_keeps_its_pitch_and_level():
    tone = np.sin(2 * np.pi * 440 * np.arange(24_000) / 24_000).astype(np.float32)
    pieces = encode_segment(Encoder(AudioSettings(F32LE, 8_000)), tone, [])
    out = np.frombuffer(data_of(*pieces), "<f4")
    expected = np.sin(2 * np.pi * 440 * np.arange(8_000) / 8_000)
    np.testing.assert_allclose(out[200:-200], expected[200:-200], atol=1e-3)


def test_sixteen_bits_round_and_clip():
    samples = np.array([0.0, 1.0, -1.0, 2.0, -2.0, 0.5, 1 / 32767], np.float32)
    assert np.frombuffer(pcm_s16le(samples), "<i2").tolist() == [0, 32767, -32767, 32767, -32767, 16384, 1]


def test_the_wave_module_reads_the_wav_header():
    settings_ = AudioSettings(AudioFormat.WAV, 16_000)
    pieces = encode_segment(Encoder(settings_), noise(4800), [])
    writer = settings_.writer()
    data = b"".join(writer.write(piece.packets) for piece in pieces)
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
        assert file.readframes(10_000) == data[44:] == data_of(*pieces)


@pytest.mark.parametrize("audio_format", [AudioFormat.PCM_S16LE, AudioFormat.PCM_F32LE])
def test_raw_formats_have_no_header(audio_format: AudioFormat):
    pieces = encode_segment(Encoder(AudioSettings(audio_format)), noise(4800), [])
    assert AudioSettings(audio_format).writer().write(pieces[0].packets) == data_of(pieces[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_a_failure_of_the_engine(bad: float):
    with pytest.raises(EngineFailure):
        Encoder(AudioSettings()).encode(np.array([0.0, bad], np.float32))


@pytest.mark.parametrize("rate_hz", [0, -1, 24_001, 11_026])
def test_other_rates_are_rejected(rate_hz: int):
    with pytest.raises(InvalidInput) as raised:
        AudioSettings(sample_rate_hz=rate_hz)
    assert (raised.value.reason, raised.value.field) == ("SAMPLE_RATE_UNSUPPORTED", "settings.sample_rate_hz")
    assert "48000" in raised.value.allowed


@pytest.mark.parametrize("audio_format", [AudioFormat.MULAW, AudioFormat.ALAW, AudioFormat.OGG_OPUS])
def test_rates_that_a_format_does_not_support_are_rejected(audio_format: AudioFormat):
    AudioSettings(audio_format, audio_format.default_rate_hz)
    with pytest.raises(InvalidInput) as raised:
        AudioSettings(audio_format, 44_100)
    assert (raised.value.reason, raised.value.field) == ("SAMPLE_RATE_UNSUPPORTED", "settings.sample_rate_hz")
    assert audio_format.value in raised.value.allowed
