"""Audio files of many formats for tests, made with PyAV."""

from __future__ import annotations

import io
import struct
import zlib
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt


def encode(container: str, codec: str, rate_hz: int, planes: npt.NDArray[np.float32], bit_rate: int = 0) -> bytes:
    """A file of `planes` (channels, samples)."""
    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[len(planes)]
    target = io.BytesIO()
    with av.open(target, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate_hz, layout=layout)
        if bit_rate:
            stream.bit_rate = bit_rate
        _mux(output, stream, planes, layout)
    return target.getvalue()


def _mux(output, stream, planes: npt.NDArray[np.float32], layout: str) -> None:
    frame_samples = stream.codec_context.frame_size or 4096
    convert = av.AudioResampler(
        format=stream.codec_context.format, layout=layout, rate=stream.rate, frame_size=frame_samples
    )
    packed = np.ascontiguousarray(planes.T, np.float32).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
    frame.sample_rate = stream.rate
    for piece in (*convert.resample(frame), *convert.resample(None)):
        output.mux(stream.encode(piece))
    output.mux(stream.encode(None))


def with_cover(picture: bytes, planes: npt.NDArray[np.float32] | None, rate_hz: int = 16_000) -> bytes:
    """A QuickTime file with `picture` as a PNG video track and, if given, `planes` as PCM."""
    target = io.BytesIO()
    with av.open(target, "w", format="mov") as output:
        video = output.add_stream("png", rate=1)
        video.width, video.height, video.pix_fmt = 16, 16, "rgb24"
        audio = None if planes is None else output.add_stream("pcm_s16le", rate=rate_hz, layout="mono")
        packet = av.Packet(picture)
        packet.stream, packet.pts, packet.dts, packet.time_base = video, 0, 0, Fraction(1, 1)
        output.mux(packet)
        if audio is not None and planes is not None:
            _mux(output, audio, planes, "mono")
    return target.getvalue()


def png(width: int, height: int) -> bytes:
    """A black picture: thousands of times smaller than its pixels."""
    squeeze = zlib.compressobj(1)
    row = b"\0" * (1 + 3 * width)
    pixels = b"".join([squeeze.compress(row) for _ in range(height)]) + squeeze.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(*part) for part in ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def compressed_header(inflated_bytes: int) -> bytes:
    """A QuickTime file whose header is compressed and inflates to so many zeros."""
    claim = struct.pack(">I", inflated_bytes) + zlib.compress(bytes(inflated_bytes), 1)
    header = _atom(b"cmov", _atom(b"dcom", b"zlib") + _atom(b"cmvd", claim))
    return _atom(b"ftyp", b"qt  \0\0\0\0qt  ") + _atom(b"moov", header)


def _atom(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", 8 + len(data)) + kind + data
