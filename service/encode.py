"""The engine's 24 kHz samples as a client wants them: rate and format. Knows nothing of text or of streams."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt
import soxr

from engines.config import SAMPLE_RATE_HZ
from engines.errors import EngineFailure, InvalidInput

Samples = npt.NDArray[np.float32]

SAMPLE_RATES_HZ = (8_000, 16_000, 22_050, 24_000, 44_100, 48_000)
_OPEN_LENGTH = 0xFFFFFFFF  # what a WAV header says when the length is not known yet
_EMPTY: Samples = np.zeros(0, np.float32)


class AudioFormat(Enum):
    """How samples are written; all mono."""

    PCM_S16LE = "pcm_s16le"
    PCM_F32LE = "pcm_f32le"
    WAV = "wav"


@dataclass(frozen=True)
class AudioSettings:
    """Raises InvalidInput when the rate is not one of SAMPLE_RATES_HZ."""

    audio_format: AudioFormat = AudioFormat.PCM_S16LE
    sample_rate_hz: int = SAMPLE_RATE_HZ

    def __post_init__(self) -> None:
        if self.sample_rate_hz not in SAMPLE_RATES_HZ:
            allowed = ", ".join(map(str, SAMPLE_RATES_HZ))
            raise InvalidInput("settings.sample_rate_hz", self.sample_rate_hz, allowed, "SAMPLE_RATE_UNSUPPORTED")


@dataclass(frozen=True)
class Encoded:
    """`data` holds `samples` samples at the client's rate; both may be empty."""

    data: bytes
    samples: int


class Encoder:
    """Audio in pieces -> bytes in pieces.

    After each `end_segment` exactly round(n x rate / 24000) samples have come out, n being all that went in. Segments
    do not run into each other: each is resampled on its own, so that nothing of one waits for the next.
    """

    def __init__(self, settings: AudioSettings) -> None:
        self._settings = settings
        self._in_samples = 0  # at 24 kHz
        self._out_samples = 0  # at the client's rate
        self._resampler: soxr.ResampleStream | None = None

    def encode(self, samples: Samples) -> Encoded:
        """The next piece of a segment. Raises EngineFailure when a sample is not a finite number."""
        if not np.isfinite(samples).all():
            raise EngineFailure("the engine made samples that are not finite numbers")
        self._in_samples += len(samples)
        return self._written(self._resample(samples, last=False))

    def end_segment(self) -> Encoded:
        """What the resampler still held of the segment."""
        tail = self._resample(_EMPTY, last=True) if self._resampler is not None else _EMPTY
        self._resampler = None
        due = self._due_samples() - self._out_samples
        # soxr rounds per segment, the timeline as a whole: they differ by a sample at most, always in the tail
        exact = tail[:due] if due <= len(tail) else np.pad(tail, (0, due - len(tail)))
        return self._written(exact)

    def abandon_segment(self) -> None:
        """Forget what the resampler holds: what went in so far is not continued, counting starts anew."""
        self._resampler = None
        self._in_samples = self._out_samples = 0

    def _due_samples(self) -> int:
        return (self._in_samples * self._settings.sample_rate_hz + SAMPLE_RATE_HZ // 2) // SAMPLE_RATE_HZ

    def _resample(self, samples: Samples, *, last: bool) -> Samples:
        rate = self._settings.sample_rate_hz
        if rate == SAMPLE_RATE_HZ:
            return samples
        if self._resampler is None:
            self._resampler = soxr.ResampleStream(SAMPLE_RATE_HZ, rate, 1, dtype="float32", quality="HQ")
        out: Samples = self._resampler.resample_chunk(samples, last=last)
        return out

    def _written(self, samples: Samples) -> Encoded:
        self._out_samples += len(samples)
        if self._settings.audio_format is AudioFormat.PCM_F32LE:
            return Encoded(samples.astype("<f4").tobytes(), len(samples))
        return Encoded(pcm_s16le(samples), len(samples))


def pcm_s16le(samples: Samples) -> bytes:
    """Full scale 1.0 becomes 32767; what is louder is clipped."""
    written: bytes = np.rint(np.clip(samples, -1.0, 1.0) * 32767.0).astype("<i2").tobytes()
    return written


def stream_header(settings: AudioSettings) -> bytes:
    """What stands in front of a stream's first sample: a WAV header of open length, or nothing."""
    if settings.audio_format is not AudioFormat.WAV:
        return b""
    rate = settings.sample_rate_hz
    form = struct.pack("<HHIIHH", 1, 1, rate, rate * 2, 2, 16)  # PCM, mono, bytes/s, bytes/frame, bits
    sizes = struct.pack("<I", _OPEN_LENGTH)
    return b"RIFF" + sizes + b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + sizes
