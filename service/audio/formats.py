"""Audio formats that clients can ask for: their sample rates, and the codec and container that make them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from engines.audio import to_f32le
from engines.errors import InvalidInput
from engines.model_spec import SAMPLE_RATE_HZ
from service.audio import codecs
from service.audio.codecs import Codec, PerSampleCodec, a_law, g711, mu_law, pcm_s16le
from service.audio.containers import Adts, Raw, Wav, Writer
from service.audio.flac import Flac
from service.audio.ogg import OggOpus
from service.audio.webm import WebmOpus

SAMPLE_RATES_HZ = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_CODEC_RATES_HZ = (8_000, 16_000, 22_050, 24_000, 44_100, 48_000)
_OPUS_RATES_HZ = (8_000, 16_000, 24_000, 48_000)
_TELEPHONE_RATE_HZ = 8_000


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
        """Supported sample rates, ascending."""
        return _SPECS[self].rates_hz

    @property
    def default_rate_hz(self) -> int:
        """The model's own rate if the format supports it, else its highest."""
        return SAMPLE_RATE_HZ if SAMPLE_RATE_HZ in self.rates_hz else self.rates_hz[-1]

    @property
    def takes_time(self) -> bool:
        """Whether encoding a second of audio takes milliseconds, too long for an event loop."""
        return _SPECS[self].takes_time

    @property
    def priming_is_skipped(self) -> bool:
        """Whether the header makes a decoder drop what the encoder puts before a stream's first sample."""
        return self in (AudioFormat.OGG_OPUS, AudioFormat.WEBM_OPUS)


@dataclass(frozen=True)
class _FormatSpec:
    """Constructors of a format's codec and writer, which take the sample rate, and its sample rates."""

    codec: Callable[[int], Codec]
    writer: Callable[[int], Writer]
    rates_hz: tuple[int, ...] = SAMPLE_RATES_HZ
    takes_time: bool = False
    delay_s: Callable[[int], float] = lambda _: 0.0  # by which a decoder's samples follow the encoder's


def _flac_writer(rate_hz: int) -> Writer:
    return Flac(rate_hz, codecs.FLAC.frame_samples(rate_hz))


def _opus_delay_s(_: int) -> float:
    return codecs.OPUS_LOOKAHEAD_SAMPLES / codecs.OPUS_RATE_HZ


_SPECS = {
    AudioFormat.PCM_S16LE: _FormatSpec(lambda _: PerSampleCodec(pcm_s16le), lambda _: Raw()),
    AudioFormat.PCM_F32LE: _FormatSpec(lambda _: PerSampleCodec(to_f32le), lambda _: Raw()),
    AudioFormat.WAV: _FormatSpec(lambda _: PerSampleCodec(pcm_s16le), Wav),
    AudioFormat.OGG_OPUS: _FormatSpec(codecs.OPUS.open, OggOpus, _OPUS_RATES_HZ, True, _opus_delay_s),
    AudioFormat.WEBM_OPUS: _FormatSpec(codecs.OPUS.open, WebmOpus, _OPUS_RATES_HZ, True, _opus_delay_s),
    AudioFormat.MP3: _FormatSpec(codecs.MP3.open, lambda _: Raw(), _CODEC_RATES_HZ, True, lambda rate: 1105 / rate),
    AudioFormat.FLAC: _FormatSpec(codecs.FLAC.open, _flac_writer, _CODEC_RATES_HZ, takes_time=True),
    AudioFormat.AAC: _FormatSpec(codecs.AAC.open, Adts, _CODEC_RATES_HZ, True, lambda rate: 1024 / rate),
    AudioFormat.MULAW: _FormatSpec(lambda _: PerSampleCodec(g711(mu_law())), lambda _: Raw(), (_TELEPHONE_RATE_HZ,)),
    AudioFormat.ALAW: _FormatSpec(lambda _: PerSampleCodec(g711(a_law())), lambda _: Raw(), (_TELEPHONE_RATE_HZ,)),
}
assert _SPECS.keys() == set(AudioFormat)


@dataclass(frozen=True)
class AudioSettings:
    """A format at a sample rate. Raises InvalidInput if the format does not support the rate."""

    audio_format: AudioFormat = AudioFormat.PCM_S16LE
    sample_rate_hz: int = SAMPLE_RATE_HZ

    def __post_init__(self) -> None:
        rates_hz = self.audio_format.rates_hz
        if self.sample_rate_hz not in rates_hz:
            allowed = f"{', '.join(map(str, rates_hz))} for {self.audio_format.value}"
            raise InvalidInput(
                "settings.sample_rate_hz",
                f"settings.sample_rate_hz is {self.sample_rate_hz}; allowed rates are {allowed}.",
                "SAMPLE_RATE_UNSUPPORTED",
                value=self.sample_rate_hz,
                allowed=allowed,
            )

    def codec(self) -> Codec:
        """A codec for one segment."""
        return _SPECS[self.audio_format].codec(self.sample_rate_hz)

    @property
    def delay_samples(self) -> int:
        """How far a decoder's samples of a segment lie behind those that were encoded."""
        return round(_SPECS[self.audio_format].delay_s(self.sample_rate_hz) * self.sample_rate_hz)

    def writer(self) -> Writer:
        """The container writer of one stream."""
        return _SPECS[self.audio_format].writer(self.sample_rate_hz)
