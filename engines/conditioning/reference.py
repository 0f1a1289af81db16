"""Reference audio: the bytes of an audio file -> mono 24 kHz samples. The bytes are a stranger's.

Knows containers and codecs through PyAV, and every limit on what a stranger may send; knows nothing of models.
Only the given bytes are ever read: FFmpeg opens no path and no URL, probes with audio decoders alone, and what is
decoded is bounded while it is decoded, so that a small file cannot fill the memory.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn

import av
import numpy as np
import numpy.typing as npt

from engines.audio import Samples, StreamResampler, loudness_lufs
from engines.errors import invalid_value
from engines.model_spec import SAMPLE_RATE_HZ

MAX_REFERENCE_BYTES = 32 * 2**20
MIN_REFERENCE_S = 5.0  # exclusive, upstream's bound
MAX_REFERENCE_S = 120.0
MIN_REFERENCE_LUFS = -60.0  # quieter than any speech somebody meant to record
MIN_SOURCE_RATE_HZ, MAX_SOURCE_RATE_HZ = 4_000, 384_000
# PyAV looks for a planar frame's channels up to a null pointer, which frames of eight and more do not have: a crash.
MAX_SOURCE_CHANNELS = 6
_MAX_FRAME_SAMPLES = 2**18  # per channel in one decoded frame; ordinary codecs stay below 200 000
_MAX_STREAMS = 64
_MAX_BAD_PACKETS = 8  # a stray tag or a torn frame is survivable, more means the recording itself is broken
_MAX_AMPLITUDE = 2.0**16  # float files in integer scale pass; loudness normalisation brings them down

# Demuxers that read one file and follow no reference to another (as hls, dash, concat, sdp or image2 would).
_CONTAINERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dts,eac3,flac,flv,gsm,iff,matroska,mov,mp3,mpc,mpc8,mpeg,mpegts,"
    "ogg,qoa,tak,tta,voc,w64,wav,wv"
)
_DECODERS = (
    "aac,aac_latm,ac3,alac,amrnb,amrwb,ape,dca,eac3,flac,g722,g726,gsm,gsm_ms,libopencore_amrnb,libopencore_amrwb,"
    "libopus,libspeex,libvorbis,mlp,mp1,mp1float,mp2,mp2float,mp3,mp3float,mpc7,mpc8,nellymoser,opus,qoa,speex,tak,"
    "truehd,tta,vorbis,wavpack,wmalossless,wmapro,wmav1,wmav2,wmavoice"
)
# PyAV's decoding errors and what its wrappers raise on nonsense in headers.
_DECODING_ERRORS = (av.FFmpegError, ArithmeticError, LookupError, RuntimeError, ValueError)
# QuickTime's compressed header, as FFmpeg reads it: it would inflate to whatever size the last field claims.
_COMPRESSED_HEADER = re.compile(rb"cmov.{4}dcomzlib.{4}cmvd(.{4})", re.DOTALL)


@dataclass(frozen=True)
class Reference:
    """samples: (n,) float32 mono 24 kHz, longer than 5 s; loudness: of these samples; source: e.g. "flac 44100 Hz"."""

    samples: Samples
    loudness_lufs: float
    source: str

    @property
    def duration_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE_HZ


def load_reference(audio: bytes) -> Reference:
    """Decode an audio file's bytes: any usual container, codec, rate and channel count; channels are averaged.

    Raises InvalidInput for the field "audio" with reason AUDIO_EMPTY, AUDIO_TOO_LARGE (in bytes, or decoded size),
    AUDIO_NOT_DECODABLE (not audio, corrupt, or outside the limits on rate and channels), AUDIO_TOO_SHORT,
    AUDIO_TOO_LONG or AUDIO_SILENT. Source: upstream's prepare_conditionals, which leaves this to librosa.load.
    """
    return judge(*decode(audio))


def decode(audio: bytes) -> tuple[Samples, str]:
    """What meets the stranger's bytes: samples as in a Reference, of at most 120 s, and a word on their source.

    Raises InvalidInput as `load_reference`, but for AUDIO_TOO_SHORT and AUDIO_SILENT.
    """
    _check_bytes(audio)
    try:
        return _decode(audio)
    except _DECODING_ERRORS as error:
        _not_decodable(f"{len(audio)} bytes ({getattr(error, 'strerror', None) or error})", error)


def judge(samples: Samples, source: str) -> Reference:
    """The Reference that decoded samples are. Raises InvalidInput with AUDIO_TOO_SHORT or AUDIO_SILENT."""
    duration_s = len(samples) / SAMPLE_RATE_HZ
    if duration_s <= MIN_REFERENCE_S:
        raise invalid_value("audio", f"{duration_s:.2f} s", _allowed_length(), "AUDIO_TOO_SHORT")
    loudness = loudness_lufs(samples, SAMPLE_RATE_HZ)
    if loudness < MIN_REFERENCE_LUFS:
        allowed = f"speech of at least {MIN_REFERENCE_LUFS:.0f} LUFS"
        raise invalid_value("audio", f"{loudness:.0f} LUFS", allowed, "AUDIO_SILENT")
    return Reference(samples, loudness, source)


def _allowed_length() -> str:
    return f"more than {MIN_REFERENCE_S:.0f} s and at most {MAX_REFERENCE_S:.0f} s"


def _not_decodable(found: str, cause: Exception | None = None) -> NoReturn:
    allowed = "an intact audio file, e.g. WAV, FLAC, MP3, Ogg, M4A or WebM"
    raise invalid_value("audio", found, allowed, "AUDIO_NOT_DECODABLE") from cause


def _too_large(found: str, allowed: str) -> NoReturn:
    raise invalid_value("audio", found, allowed, "AUDIO_TOO_LARGE")


def _check_bytes(audio: bytes) -> None:
    if not audio:
        raise invalid_value("audio", "0 bytes", "an audio file", "AUDIO_EMPTY")
    if len(audio) > MAX_REFERENCE_BYTES:
        _too_large(f"{len(audio)} bytes", f"at most {MAX_REFERENCE_BYTES} bytes")
    for header in _COMPRESSED_HEADER.finditer(audio):
        claimed_bytes = int.from_bytes(header.group(1), "big")
        if claimed_bytes > MAX_REFERENCE_BYTES:
            _too_large(f"a header of {claimed_bytes} bytes", f"at most {MAX_REFERENCE_BYTES} bytes")


def _decode(audio: bytes) -> tuple[Samples, str]:
    """Mono samples at 24 kHz and a word on where they come from."""
    with _open(audio) as container:
        if not container.streams.audio:
            kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            _not_decodable(f"no audio stream, only {kinds}")
        stream = container.streams.audio[0]
        rate_hz = _check_stream(stream)
        resampler = StreamResampler(rate_hz, SAMPLE_RATE_HZ)
        pieces = [resampler.push(mono) for mono in _mono_pieces(container, stream, rate_hz)]
        return np.concatenate([*pieces, resampler.finish()]), f"{stream.codec_context.name} {rate_hz} Hz"


def _open(audio: bytes) -> av.container.InputContainer:
    options = {
        "format_whitelist": _CONTAINERS,
        "codec_whitelist": _decoder_names(),  # no video decoder runs, not even to probe a cover picture
        "max_samples": str(_MAX_FRAME_SAMPLES),
        "max_streams": str(_MAX_STREAMS),
    }
    return av.open(io.BytesIO(audio), "r", options=options, metadata_errors="replace", io_open=_refuse_to_open)


def _refuse_to_open(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    _not_decodable("a file that refers to another one")


@lru_cache(maxsize=1)
def _decoder_names() -> str:
    raw = sorted(name for name in av.codecs_available if name.startswith(("pcm_", "adpcm_")))
    return ",".join([_DECODERS, *raw])


def _check_stream(stream: av.AudioStream) -> int:
    """The stream's rate, after everything its header claims was found within the limits."""
    codec = stream.codec_context
    if codec is None or codec.name not in _decoder_names().split(","):
        _not_decodable(f"codec {codec.name if codec else 'unknown'}")
    if not MIN_SOURCE_RATE_HZ <= codec.sample_rate <= MAX_SOURCE_RATE_HZ:
        _not_decodable(f"a rate of {codec.sample_rate} Hz, outside {MIN_SOURCE_RATE_HZ}..{MAX_SOURCE_RATE_HZ}")
    if codec.channels > MAX_SOURCE_CHANNELS:
        _not_decodable(f"{codec.channels} channels, more than {MAX_SOURCE_CHANNELS}")
    codec.options = {"max_samples": str(_MAX_FRAME_SAMPLES)}
    return codec.sample_rate


def _mono_pieces(container: av.container.InputContainer, stream: av.AudioStream, rate_hz: int) -> Iterator[Samples]:
    """Decoded frames, channels averaged, at the source's rate; stops as soon as they are too many."""
    left_samples = math.floor(MAX_REFERENCE_S * rate_hz)
    for frame in _frames(container, stream):
        if frame.sample_rate != rate_hz:
            _not_decodable(f"a rate that changes from {rate_hz} to {frame.sample_rate} Hz")
        left_samples -= frame.samples
        if left_samples < 0:
            raise invalid_value("audio", f"more than {MAX_REFERENCE_S:.0f} s", _allowed_length(), "AUDIO_TOO_LONG")
        yield _mono(frame)


def _frames(container: av.container.InputContainer, stream: av.AudioStream) -> Iterator[av.AudioFrame]:
    bad_packets = 0
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.InvalidDataError as error:
            bad_packets += 1
            if bad_packets > _MAX_BAD_PACKETS:
                _not_decodable(f"more than {_MAX_BAD_PACKETS} corrupt packets", error)


def _mono(frame: av.AudioFrame) -> Samples:
    """(samples,) float32: the mean of the frame's channels, integers scaled to full scale 1.0."""
    channels = frame.layout.nb_channels
    if channels > MAX_SOURCE_CHANNELS:
        _not_decodable(f"{channels} channels, more than {MAX_SOURCE_CHANNELS}")
    array = frame.to_ndarray()  # (channels, samples) if planar, else (1, samples x channels)
    planes = array if frame.format.is_planar else array.reshape(-1, channels).T
    mono: Samples = _unit_scale(planes).mean(axis=0, dtype=np.float32)
    if not np.abs(mono).max(initial=0.0) <= _MAX_AMPLITUDE:  # NaN fails every comparison
        _not_decodable("samples that are infinite, not a number or absurdly large")
    return mono


def _unit_scale(planes: npt.NDArray[np.generic]) -> Samples:
    if planes.dtype == np.uint8:
        return (planes.astype(np.float32) - 128.0) / 128.0
    scale = 1.0 if planes.dtype.kind == "f" else 2.0 ** (8 * planes.dtype.itemsize - 1)
    with np.errstate(over="ignore"):  # a double beyond single precision becomes infinite and is refused
        return planes.astype(np.float32) / np.float32(scale)
