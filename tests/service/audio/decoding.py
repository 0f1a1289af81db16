"""A stream's bytes decoded by FFmpeg, as a player does."""

from __future__ import annotations

import io

import av
import numpy as np

from service.audio.formats import AudioFormat, AudioSettings

_RAW = {
    AudioFormat.PCM_S16LE: "s16le",
    AudioFormat.PCM_F32LE: "f32le",
    AudioFormat.MULAW: "mulaw",
    AudioFormat.ALAW: "alaw",
}
_ADTS = {AudioFormat.AAC: "aac"}


def decode(data: bytes, settings: AudioSettings) -> np.ndarray:
    """Returns (n,) float32 at the stream's rate. A format with a header must be recognised by it."""
    raw = _RAW.get(settings.audio_format)
    options = {"sample_rate": str(settings.sample_rate_hz)} if raw else {}
    name = raw or _ADTS.get(settings.audio_format)
    with av.open(io.BytesIO(data), format=name, options=options) as container:
        frames = list(container.decode(audio=0))
    rate_hz = frames[0].sample_rate
    pieces = [_floats(frame) for frame in frames]
    samples = np.concatenate(pieces)
    if rate_hz != settings.sample_rate_hz:  # Opus: decoders always return 48 kHz
        resampler = av.AudioResampler("flt", "mono", settings.sample_rate_hz)
        frame = av.AudioFrame.from_ndarray(samples[None, :], format="flt", layout="mono")
        frame.sample_rate = rate_hz
        pieces = [_floats(each) for piece in (frame, None) for each in resampler.resample(piece)]
        samples = np.concatenate(pieces)
    return samples


def _floats(frame: av.AudioFrame) -> np.ndarray:
    array = frame.to_ndarray().reshape(-1)
    if array.dtype == np.int16:
        return array.astype(np.float32) / 32767
    assert array.dtype == np.float32, array.dtype
    return array


def snr_db(reference: np.ndarray, decoded: np.ndarray) -> float:
    """Signal-to-noise ratio of two signals of the same length."""
    error = reference - decoded
    return float(10 * np.log10(np.sum(reference**2) / max(float(np.sum(error**2)), 1e-20)))
