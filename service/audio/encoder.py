"""The streaming encoder: the engine's 24 kHz samples to packets in a client's format and sample rate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soxr

from engines.errors import EngineFailure
from engines.model_spec import SAMPLE_RATE_HZ
from service.audio import codecs
from service.audio.codecs import Codec, Packet
from service.audio.formats import AudioSettings

Samples = npt.NDArray[np.float32]

_EMPTY: Samples = np.zeros(0, np.float32)


@dataclass(frozen=True)
class Encoded:
    """Packets, and the number of samples at the client's rate that a decoder makes of them; both may be empty."""

    packets: tuple[Packet, ...]
    samples: int


class Encoder:
    """A streaming encoder: resamples and encodes the chunks of one stream, segment by segment.

    After each `end_segment`, round(n x rate / 24000) samples have been returned for the n samples given so far. Formats
    with fixed frames add the encoder's delay and the padding of a last frame to every segment. Each segment is
    resampled and encoded on its own, so that no part of it waits for the next.
    """

    def __init__(self, settings: AudioSettings, *, at_start: bool = True) -> None:
        """`at_start`: the client has not received any audio of this stream yet."""
        self._settings = settings
        self._in_samples = 0  # at 24 kHz
        self._out_samples = 0  # at the client's rate, before encoding
        self._resampler: soxr.ResampleStream | None = None
        self._codec: Codec | None = None
        skipped = at_start and settings.audio_format.priming_is_skipped
        lookahead_samples = codecs.OPUS_LOOKAHEAD_SAMPLES * settings.sample_rate_hz // codecs.OPUS_RATE_HZ
        self._skip_samples = lookahead_samples if skipped else 0
        self.delay_samples = settings.delay_samples - self._skip_samples  # of the segment that is encoded now

    def encode(self, samples: Samples) -> Encoded:
        """Encodes the next samples (n,) of a segment. Raises EngineFailure if one is not finite."""
        if not np.isfinite(samples).all():
            raise EngineFailure("The engine returned samples that are not finite.")
        self._in_samples += len(samples)
        return self._counted(self._encode(self._resample(samples, last=False)))

    def end_segment(self) -> Encoded:
        """Flushes the resampler and the codec."""
        tail = self._resample(_EMPTY, last=True) if self._resampler is not None else _EMPTY
        self._resampler = None
        due = self._due_samples() - self._out_samples
        # soxr rounds per segment and the timeline over the whole stream: the tail makes up for the one sample between
        exact = tail[:due] if due <= len(tail) else np.pad(tail, (0, due - len(tail)))
        packets = self._encode(exact)
        if self._codec is not None:
            packets += self._codec.finish()
        self._codec = None
        encoded = self._counted(packets)
        if not self._skip_samples:
            self.delay_samples = self._settings.delay_samples
        return encoded

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

    def _encode(self, samples: Samples) -> list[Packet]:
        if not len(samples):
            return []
        if self._codec is None:
            self._codec = self._settings.codec()
        self._out_samples += len(samples)
        return self._codec.encode(samples)

    def _counted(self, packets: list[Packet]) -> Encoded:
        samples = sum(packet.samples for packet in packets)
        if samples:  # a packet is always longer than the priming
            samples, self._skip_samples = samples - self._skip_samples, 0
        return Encoded(tuple(packets), samples)
