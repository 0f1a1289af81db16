"""Codecs: samples to packets as PCM, G.711 or by FFmpeg's encoders. A codec lives for one segment.

FFmpeg comes with PyAV, which is imported when the first codec needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

OPUS_RATE_HZ = 48_000  # of every Opus decoder; containers count in it
OPUS_LOOKAHEAD_SAMPLES = 312  # at 48 kHz: libopus's delay


@dataclass(frozen=True)
class Packet:
    """One decoder input. `samples`: how many samples it decodes to, the encoder's delay included."""

    data: bytes
    samples: int


class Codec(Protocol):
    """Encodes float samples (n,) at the client's rate."""

    def encode(self, samples: Samples) -> list[Packet]:
        """Returns the packets that are complete by now."""

    def finish(self) -> list[Packet]:
        """Ends the codec. Returns the remaining packets, padded with silence where the codec has fixed frames."""


class PerSampleCodec:
    """A Codec without state: `convert` encodes each sample by itself."""

    def __init__(self, convert: Callable[[Samples], bytes]) -> None:
        self._convert = convert

    def encode(self, samples: Samples) -> list[Packet]:
        return [Packet(self._convert(samples), len(samples))] if len(samples) else []

    def finish(self) -> list[Packet]:
        return []


def pcm_s16le(samples: Samples) -> bytes:
    """Little-endian 16-bit samples: 1.0 becomes 32767; louder samples are clipped."""
    data: bytes = np.rint(np.clip(samples, -1.0, 1.0) * 32767.0).astype("<i2").tobytes()
    return data


def g711(law: Bytes) -> Callable[[Samples], bytes]:
    """Returns a conversion to ITU-T G.711 by its table of codes, `mu_law()` or `a_law()`: one byte for each sample."""

    def convert(samples: Samples) -> bytes:
        bits = np.frombuffer(pcm_s16le(samples), "<i2").view(np.uint16)
        return law[bits].tobytes()

    return convert


@lru_cache(maxsize=1)
def mu_law() -> Bytes:
    """(65536,) codes by the sample's 16 bits: sign, 3 bits of segment, 4 bits within it, all inverted."""
    samples = _every_sample()
    magnitude = np.minimum(np.abs(samples >> 2), 8158) + 33  # 14 bits and G.711's bias
    segment = np.log2(magnitude).astype(np.int32) - 5
    step = (magnitude >> (segment + 1)) & 0xF
    sign = np.where(samples < 0, 0x80, 0)
    codes: Bytes = (~(sign | segment << 4 | step)).astype(np.uint8)
    return codes


@lru_cache(maxsize=1)
def a_law() -> Bytes:
    """(65536,) codes by the sample's 16 bits: sign, 3 bits of segment, 4 bits within it, every other bit inverted."""
    samples = _every_sample()
    value = np.where(samples < 0, -1 - samples, samples) >> 3  # 13 bits
    segment = np.maximum(np.log2(np.maximum(value, 1)).astype(np.int32) - 4, 0)
    step = (value >> np.maximum(segment, 1)) & 0xF
    sign = np.where(samples < 0, 0, 0x80)
    codes: Bytes = ((sign | segment << 4 | step) ^ 0x55).astype(np.uint8)
    return codes


def _every_sample() -> npt.NDArray[np.int32]:
    """(65536,) 16-bit samples, each at the index of its bits: 0 to 32767, then -32768 to -1."""
    return np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32)


@dataclass(frozen=True)
class FFmpegCodec:
    """One of FFmpeg's encoders and its settings."""

    name: str
    sample_format: str
    options: dict[str, str]
    kilobits_per_s: tuple[int, int] = (0, 0)  # up to 24 kHz, above; 0: the encoder has no bit rate
    frame_ms: int = 0  # 0: the encoder chooses

    def open(self, rate_hz: int) -> FFmpegEncoder:
        return FFmpegEncoder(self, rate_hz)

    def frame_samples(self, rate_hz: int) -> int:
        """Samples in a frame of `frame_ms`."""
        return rate_hz * self.frame_ms // 1000


# Packets depend on their neighbours by the encoder's overlap only, so a cancel may drop any of them.
OPUS = FFmpegCodec("libopus", "flt", {"application": "audio", "frame_duration": "20"}, (48, 64))
MP3 = FFmpegCodec("libmp3lame", "fltp", {"reservoir": "0"}, (64, 96))
AAC = FFmpegCodec("aac", "fltp", {}, (64, 96))
FLAC = FFmpegCodec("flac", "s16", {"compression_level": "5"}, frame_ms=20)


class FFmpegEncoder:
    """A Codec on PyAV, which cuts the samples into the encoder's frames."""

    def __init__(self, codec: FFmpegCodec, rate_hz: int) -> None:
        import av

        self._frame_of = av.AudioFrame.from_ndarray
        self._codec, self._rate_hz = codec, rate_hz
        self._position_samples = 0
        context: Any = av.CodecContext.create(codec.name, "w")
        context.sample_rate, context.layout, context.format = rate_hz, "mono", codec.sample_format
        context.options = dict(codec.options)
        if codec.frame_ms:
            context.options |= {"frame_size": str(codec.frame_samples(rate_hz))}
        if any(codec.kilobits_per_s):
            context.bit_rate = 1000 * codec.kilobits_per_s[rate_hz > 24_000]
        context.open()
        self._context = context

    def encode(self, samples: Samples) -> list[Packet]:
        if not len(samples):
            return []
        frame = self._frame_of(self._converted(samples)[None, :], format=self._codec.sample_format, layout="mono")
        frame.sample_rate, frame.pts = self._rate_hz, self._position_samples
        self._position_samples += len(samples)
        return self._packets(self._context.encode(frame))

    def finish(self) -> list[Packet]:
        return self._packets(self._context.encode(None))

    def _converted(self, samples: Samples) -> npt.NDArray[Any]:
        if self._codec.sample_format == "s16":
            return np.frombuffer(pcm_s16le(samples), "<i2")
        return np.clip(samples, -1.0, 1.0)

    def _packets(self, encoded: list[Any]) -> list[Packet]:
        """FLAC's last frame may be short; a lossy decoder always returns whole frames."""
        exact = self._codec is FLAC
        frame_samples = self._context.frame_size
        return [Packet(bytes(each), each.duration if exact else frame_samples) for each in encoded if each.size]
