"""Reference audio: decodes the bytes of an untrusted audio file to mono 24 kHz samples.

Only the given bytes are read: FFmpeg opens no path and no URL, and probes with audio decoders alone. The decoded size
is bounded during decoding, so that a small file cannot fill the memory. What is judged is what a voice is made from:
the part that `selection.py` chooses.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import numpy.typing as npt

from engines.audio import Samples, StreamResampler, loudness_lufs
from engines.conditioning.limits import (
    MAX_REFERENCE_BYTES,
    MAX_REFERENCE_S,
    MIN_REFERENCE_S,
    too_large,
    wrong_length,
)
from engines.conditioning.selection import offset_warning, select, without_offset
from engines.errors import InvalidInput
from engines.model_spec import SAMPLE_RATE_HZ
from engines.voice_report import VoiceReport, VoiceWarning

if TYPE_CHECKING:
    import av  # imported by what decodes: an engine without uploads runs without it

MIN_REFERENCE_LUFS = -60.0  # quieter than any intended recording of speech
MIN_SOURCE_RATE_HZ, MAX_SOURCE_RATE_HZ = 4_000, 384_000
# PyAV reads a planar frame's channels up to a null pointer, which frames of eight or more channels lack: a crash.
MAX_SOURCE_CHANNELS = 6
_MAX_FRAME_SAMPLES = 2**18  # per channel in one decoded frame; ordinary codecs stay below 200 000
_MAX_STREAMS = 64
_MAX_BAD_PACKETS = 8  # tolerates a stray tag or a torn frame; with more, the recording itself is corrupt
_CANCELLING = 0.1  # the mean of the channels has less than this share of the power of the loudest one
_MAX_AMPLITUDE = 2.0**16  # allows float files in integer scale; loudness normalisation scales them down

# Demuxers that read a single file; hls, dash, concat, sdp and image2 would follow references to other files.
_CONTAINERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dts,eac3,flac,flv,gsm,iff,matroska,mov,mp3,mpc,mpc8,mpeg,mpegts,"
    "ogg,qoa,tak,tta,voc,w64,wav,wv"
)
_DECODERS = (
    "aac,aac_latm,ac3,alac,amrnb,amrwb,ape,dca,eac3,flac,g722,g726,gsm,gsm_ms,libopencore_amrnb,libopencore_amrwb,"
    "libopus,libspeex,libvorbis,mlp,mp1,mp1float,mp2,mp2float,mp3,mp3float,mpc7,mpc8,nellymoser,opus,qoa,speex,tak,"
    "truehd,tta,vorbis,wavpack,wmalossless,wmapro,wmav1,wmav2,wmavoice"
)
# QuickTime's compressed header: FFmpeg would decompress it to the size in its last field.
_COMPRESSED_HEADER = re.compile(rb"cmov.{4}dcomzlib.{4}cmvd(.{4})", re.DOTALL)


@dataclass(frozen=True)
class Reference:
    """The part of decoded reference audio that a voice is made from.

    samples         (n,) float32 mono 24 kHz, at least 5 s
    loudness_lufs   of these samples
    source          codec and sample rate, e.g. "flac 44100 Hz"
    recorded_s      the length of the whole recording
    report          which part the samples are, and what is wrong with it
    """

    samples: Samples
    loudness_lufs: float
    source: str
    recorded_s: float
    report: VoiceReport

    @property
    def duration_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE_HZ


@dataclass(frozen=True)
class Decoded:
    """A decoded recording. `cancelling` channels would be silence in their mean: the samples are the loudest one's."""

    samples: Samples
    source: str
    cancelling: bool = False


def load_reference(audio: bytes) -> Reference:
    """Decode the bytes of an audio file of any common container, codec, sample rate and channel count to mono.

    Raises InvalidInput for the field "audio" with reason AUDIO_EMPTY, AUDIO_TOO_LARGE (in bytes, also when
    decompressed), AUDIO_NOT_DECODABLE (not audio, corrupt, or outside the limits on rate and channels),
    AUDIO_TOO_SHORT, AUDIO_TOO_LONG, AUDIO_SILENT or AUDIO_TOO_LITTLE_SPEECH. Source: upstream's prepare_conditionals
    (librosa.load), which has no choice of the part: it takes the recording from its beginning.
    """
    return check_decoded(decode(audio))


def decode(audio: bytes) -> Decoded:
    """Returns at most 120 s.

    Raises InvalidInput as `load_reference`, except for AUDIO_TOO_SHORT, AUDIO_SILENT and AUDIO_TOO_LITTLE_SPEECH.
    """
    import av

    _check_bytes(audio)
    try:
        return _decode(audio)
    # PyAV's decoding errors, and the exceptions of its wrappers for invalid headers
    except (av.FFmpegError, ArithmeticError, LookupError, RuntimeError, ValueError) as error:
        detail = getattr(error, "strerror", None) or error
        raise not_decodable(f"decoding its {len(audio)} bytes failed ({detail})") from error


def check_decoded(decoded: Decoded) -> Reference:
    """Returns the Reference of a decoded recording.

    Raises InvalidInput with AUDIO_TOO_SHORT, AUDIO_SILENT or AUDIO_TOO_LITTLE_SPEECH.
    """
    recorded_s = len(decoded.samples) / SAMPLE_RATE_HZ
    if recorded_s <= MIN_REFERENCE_S:
        raise wrong_length(f"{recorded_s:.2f} s", "AUDIO_TOO_SHORT")
    samples, offset = without_offset(decoded.samples)
    _check_audible(loudness_lufs(samples, SAMPLE_RATE_HZ))
    warnings = (offset_warning(offset),) if offset else ()
    chosen = select(samples, (*warnings, _CHANNELS_CANCEL) if decoded.cancelling else warnings)
    loudness = loudness_lufs(chosen.samples, SAMPLE_RATE_HZ)
    _check_audible(loudness)
    return Reference(chosen.samples, loudness, decoded.source, recorded_s, chosen.report)


_CHANNELS_CANCEL = VoiceWarning(
    "CHANNELS_CANCEL",
    "The channels of the recording cancel each other, so the loudest one is used alone: one of them is inverted.",
)


def _check_audible(loudness: float) -> None:
    if loudness < MIN_REFERENCE_LUFS:
        value, allowed = f"{loudness:.0f} LUFS", f"speech of at least {MIN_REFERENCE_LUFS:.0f} LUFS"
        message = f"audio is almost silent ({value}); it must be {allowed}."
        raise InvalidInput("audio", message, "AUDIO_SILENT", value=value, allowed=allowed)


def not_decodable(problem: str) -> InvalidInput:
    """Returns the error AUDIO_NOT_DECODABLE. `problem` completes the sentence "audio cannot be decoded: ..."."""
    allowed = "an intact audio file, e.g. WAV, FLAC, MP3, Ogg, M4A or WebM"
    message = f"audio cannot be decoded: {problem}; send {allowed}."
    return InvalidInput("audio", message, "AUDIO_NOT_DECODABLE", value=problem, allowed=allowed)


def _check_bytes(audio: bytes) -> None:
    if not audio:
        allowed = "an audio file"
        raise InvalidInput("audio", f"audio is empty; send {allowed}.", "AUDIO_EMPTY", value="0 bytes", allowed=allowed)
    _check_size("audio", len(audio))
    for header in _COMPRESSED_HEADER.finditer(audio):
        _check_size("audio's compressed header", int.from_bytes(header.group(1), "big"))


def _check_size(subject: str, size_bytes: int) -> None:
    if size_bytes > MAX_REFERENCE_BYTES:
        raise too_large(subject, MAX_REFERENCE_BYTES, f"{size_bytes} bytes")


def _decode(audio: bytes) -> Decoded:
    with _open(audio) as container:
        if not container.streams.audio:
            kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            raise not_decodable(f"it has no audio stream, only {kinds}")
        stream = container.streams.audio[0]
        rate_hz = _check_stream(stream)
        downmix = _Downmix(rate_hz)
        for planes in _frame_planes(container, stream, rate_hz):
            downmix.push(planes)
        samples, cancelling = downmix.finish()
        return Decoded(samples, f"{stream.codec_context.name} {rate_hz} Hz", cancelling)


class _Downmix:
    """Mono 24 kHz from frames of channels: their mean, or where they cancel each other the loudest channel."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._lanes: list[tuple[StreamResampler, list[Samples]]] = []  # the mean's, then those of the channels

    def push(self, planes: Samples) -> None:
        """Adds a frame, (channels, samples). Raises InvalidInput if the number of channels changes."""
        mean: Samples = planes.mean(axis=0, dtype=np.float32)
        lanes = [mean] if len(planes) == 1 else [mean, *planes]
        if not self._lanes:
            self._lanes = [(StreamResampler(self._rate_hz, SAMPLE_RATE_HZ), []) for _ in lanes]
        if len(lanes) != len(self._lanes):
            raise not_decodable("its number of channels changes")
        for (resampler, pieces), lane in zip(self._lanes, lanes, strict=True):
            pieces.append(resampler.push(np.ascontiguousarray(lane)))

    def finish(self) -> tuple[Samples, bool]:
        """Returns all samples, and whether the channels cancel each other."""
        if not self._lanes:
            return np.zeros(0, np.float32), False
        mean, *channels = (np.concatenate([*pieces, resampler.finish()]) for resampler, pieces in self._lanes)
        loudest = max(channels, key=_power, default=mean)
        cancelling = _power(mean) < _CANCELLING * _power(loudest)
        return (loudest if cancelling else mean), cancelling


def _power(samples: Samples) -> float:
    """The sum of squares without the mean: an offset is no signal."""
    return float(np.var(samples, dtype=np.float64)) * len(samples) if len(samples) else 0.0


def _open(audio: bytes) -> av.container.InputContainer:
    import av

    options = {
        "format_whitelist": _CONTAINERS,
        "codec_whitelist": _decoder_names(),  # so that no video decoder runs, not even to probe a cover picture
        "max_samples": str(_MAX_FRAME_SAMPLES),
        "max_streams": str(_MAX_STREAMS),
    }
    return av.open(io.BytesIO(audio), "r", options=options, metadata_errors="replace", io_open=_refuse_to_open)


def _refuse_to_open(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise not_decodable("it refers to another file")


@lru_cache(maxsize=1)
def _decoder_names() -> str:
    import av

    raw = sorted(name for name in av.codecs_available if name.startswith(("pcm_", "adpcm_")))
    return ",".join([_DECODERS, *raw])


def _check_stream(stream: av.AudioStream) -> int:
    """Returns the stream's sample rate. Raises InvalidInput if its header is outside the limits."""
    codec = stream.codec_context
    if codec is None or codec.name not in _decoder_names().split(","):
        raise not_decodable(f"its codec, {codec.name if codec else 'unknown'}, is not supported")
    if not MIN_SOURCE_RATE_HZ <= codec.sample_rate <= MAX_SOURCE_RATE_HZ:
        limits = f"{MIN_SOURCE_RATE_HZ} to {MAX_SOURCE_RATE_HZ} Hz"
        raise not_decodable(f"its sample rate is {codec.sample_rate} Hz, outside {limits}")
    _check_channels(codec.channels)
    codec.options = {"max_samples": str(_MAX_FRAME_SAMPLES)}
    return codec.sample_rate


def _check_channels(channels: int) -> None:
    if channels > MAX_SOURCE_CHANNELS:
        raise not_decodable(f"it has {channels} channels, more than {MAX_SOURCE_CHANNELS}")


def _frame_planes(container: av.container.InputContainer, stream: av.AudioStream, rate_hz: int) -> Iterator[Samples]:
    """Yields decoded frames, (channels, samples), at the source's rate. Raises InvalidInput beyond the limit."""
    left_samples = math.floor(MAX_REFERENCE_S * rate_hz)
    for frame in _frames(container, stream):
        if frame.sample_rate != rate_hz:
            raise not_decodable(f"its sample rate changes from {rate_hz} to {frame.sample_rate} Hz")
        left_samples -= frame.samples
        if left_samples < 0:
            raise wrong_length(f"more than {MAX_REFERENCE_S:.0f} s", "AUDIO_TOO_LONG")
        yield _planes(frame)


def _frames(container: av.container.InputContainer, stream: av.AudioStream) -> Iterator[av.AudioFrame]:
    import av

    bad_packets = 0
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.InvalidDataError as error:
            bad_packets += 1
            if bad_packets > _MAX_BAD_PACKETS:
                raise not_decodable(f"more than {_MAX_BAD_PACKETS} of its packets are corrupt") from error


def _planes(frame: av.AudioFrame) -> Samples:
    """(channels, samples) float32, integers scaled to full scale 1.0."""
    channels = frame.layout.nb_channels
    _check_channels(channels)
    array = frame.to_ndarray()  # (channels, samples) if planar, else (1, samples x channels)
    planes = _unit_scale(array if frame.format.is_planar else array.reshape(-1, channels).T)
    if not np.abs(planes).max(initial=0.0) <= _MAX_AMPLITUDE:  # NaN fails every comparison
        raise not_decodable("some samples are infinite, NaN or extremely large")
    return planes


def _unit_scale(planes: npt.NDArray[np.generic]) -> Samples:
    if planes.dtype == np.uint8:
        return (planes.astype(np.float32) - 128.0) / 128.0
    scale = 1.0 if planes.dtype.kind == "f" else 2.0 ** (8 * planes.dtype.itemsize - 1)
    with np.errstate(over="ignore"):  # a double beyond float32's range becomes infinite and is refused
        return planes.astype(np.float32) / np.float32(scale)
