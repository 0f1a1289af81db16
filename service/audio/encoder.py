"""The engine's 24 kHz samples as a client wants them: rate and format. Knows nothing of text or of streams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt
import soxr

from engines.errors import EngineFailure, invalid_value
from engines.model_spec import SAMPLE_RATE_HZ
from service.audio import codecs, containers
from service.audio.codecs import Codec, Packet
from service.audio.containers import Writer

Samples = npt.NDArray[np.float32]

SAMPLE_RATES_HZ = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_CODEC_RATES_HZ = (8_000, 16_000, 22_050, 24_000, 44_100, 48_000)
_OPUS_RATES_HZ = (8_000, 16_000, 24_000, 48_000)
_TELEPHONE_RATE_HZ = 8_000
_EMPTY: Samples = np.zeros(0, np.float32)


class AudioFormat(Enum):
    """How samples are written; all mono."""

    PCM_S16LE = "pcm_s16le"
    PCM_F32LE = "pcm_f32le"
    WAV = "wav"
    OGG_OPUS = "ogg_opus"
    WEBM_OPUS = "webm_opus"
    MP3 = "mp3"
    FLAC = "flac"
    AAC = "aac"
    MULAW = "mulaw"
    ALAW = "alaw"

    @property
    def rates_hz(self) -> tuple[int, ...]:
        """The rates it can be had at."""
        return _FORMS[self].rates_hz

    @property
    def default_rate_hz(self) -> int:
        """The model's own rate if the format has it."""
        return SAMPLE_RATE_HZ if SAMPLE_RATE_HZ in self.rates_hz else self.rates_hz[-1]

    @property
    def takes_time(self) -> bool:
        """Whether encoding costs milliseconds for a second of audio, too long for an event loop."""
        return _FORMS[self].takes_time

    @property
    def priming_is_skipped(self) -> bool:
        """Whether the header tells a decoder to drop what the encoder puts before a stream's first sample."""
        return self in (AudioFormat.OGG_OPUS, AudioFormat.WEBM_OPUS)


@dataclass(frozen=True)
class _Form:
    """A format's two parts, made for a rate, and its rates."""

    codec: Callable[[int], Codec]
    writer: Callable[[int], Writer]
    rates_hz: tuple[int, ...] = SAMPLE_RATES_HZ
    takes_time: bool = False


def _flac_writer(rate_hz: int) -> Writer:
    return containers.Flac(rate_hz, codecs.FLAC.frame_samples(rate_hz))


_FORMS = {
    AudioFormat.PCM_S16LE: _Form(lambda _: codecs.PcmS16le(), lambda _: containers.Bare()),
    AudioFormat.PCM_F32LE: _Form(lambda _: codecs.PcmF32le(), lambda _: containers.Bare()),
    AudioFormat.WAV: _Form(lambda _: codecs.PcmS16le(), containers.Wav),
    AudioFormat.OGG_OPUS: _Form(codecs.OPUS.open, containers.OggOpus, _OPUS_RATES_HZ, takes_time=True),
    AudioFormat.WEBM_OPUS: _Form(codecs.OPUS.open, containers.WebmOpus, _OPUS_RATES_HZ, takes_time=True),
    AudioFormat.MP3: _Form(codecs.MP3.open, lambda _: containers.Bare(), _CODEC_RATES_HZ, takes_time=True),
    AudioFormat.FLAC: _Form(codecs.FLAC.open, _flac_writer, _CODEC_RATES_HZ, takes_time=True),
    AudioFormat.AAC: _Form(codecs.AAC.open, containers.Adts, _CODEC_RATES_HZ, takes_time=True),
    AudioFormat.MULAW: _Form(
        lambda _: codecs.G711(codecs.mu_law()), lambda _: containers.Bare(), (_TELEPHONE_RATE_HZ,)
    ),
    AudioFormat.ALAW: _Form(lambda _: codecs.G711(codecs.a_law()), lambda _: containers.Bare(), (_TELEPHONE_RATE_HZ,)),
}
assert _FORMS.keys() == set(AudioFormat)


@dataclass(frozen=True)
class AudioSettings:
    """Raises InvalidInput when the format cannot be had at the rate."""

    audio_format: AudioFormat = AudioFormat.PCM_S16LE
    sample_rate_hz: int = SAMPLE_RATE_HZ

    def __post_init__(self) -> None:
        rates_hz = self.audio_format.rates_hz
        if self.sample_rate_hz not in rates_hz:
            allowed = f"{', '.join(map(str, rates_hz))} for {self.audio_format.value}"
            raise invalid_value("settings.sample_rate_hz", self.sample_rate_hz, allowed, "SAMPLE_RATE_UNSUPPORTED")

    def writer(self) -> Writer:
        """What turns one stream's packets into its bytes."""
        return _FORMS[self.audio_format].writer(self.sample_rate_hz)


@dataclass(frozen=True)
class Encoded:
    """`packets` give a decoder `samples` samples at the client's rate; both may be empty."""

    packets: tuple[Packet, ...]
    samples: int


class Encoder:
    """Audio in pieces -> packets in pieces.

    After each `end_segment` round(n x rate / 24000) samples have come out, n being all that went in; of formats with
    whole frames only, the encoder's delay and the fill of a last frame come on top, in every segment. Segments do
    not run into each other: each is resampled and encoded on its own, so that nothing of one waits for the next.
    """

    def __init__(self, settings: AudioSettings, *, at_start: bool = True) -> None:
        """`at_start`: nothing of the stream has reached the client yet."""
        self._settings = settings
        self._in_samples = 0  # at 24 kHz
        self._out_samples = 0  # at the client's rate, before encoding
        self._resampler: soxr.ResampleStream | None = None
        self._codec: Codec | None = None
        skipped = at_start and settings.audio_format.priming_is_skipped
        lookahead_samples = codecs.OPUS_LOOKAHEAD_SAMPLES * settings.sample_rate_hz // codecs.OPUS_RATE_HZ
        self._skip_samples = lookahead_samples if skipped else 0

    def encode(self, samples: Samples) -> Encoded:
        """The next piece of a segment. Raises EngineFailure when a sample is not a finite number."""
        if not np.isfinite(samples).all():
            raise EngineFailure("the engine made samples that are not finite numbers")
        self._in_samples += len(samples)
        return self._counted(self._encode(self._resample(samples, last=False)))

    def end_segment(self) -> Encoded:
        """What resampler and codec still held of the segment."""
        tail = self._resample(_EMPTY, last=True) if self._resampler is not None else _EMPTY
        self._resampler = None
        due = self._due_samples() - self._out_samples
        # soxr rounds per segment, the timeline as a whole: they differ by a sample at most, always in the tail
        exact = tail[:due] if due <= len(tail) else np.pad(tail, (0, due - len(tail)))
        packets = self._encode(exact)
        if self._codec is not None:
            packets += self._codec.finish()
        self._codec = None
        return self._counted(packets)

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
            self._codec = _FORMS[self._settings.audio_format].codec(self._settings.sample_rate_hz)
        self._out_samples += len(samples)
        return self._codec.encode(samples)

    def _counted(self, packets: list[Packet]) -> Encoded:
        samples = sum(packet.samples for packet in packets)
        if samples:  # a packet is always longer than what is skipped of the first
            samples, self._skip_samples = samples - self._skip_samples, 0
        return Encoded(tuple(packets), samples)
