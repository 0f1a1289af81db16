"""Containers without state beyond a header: raw packets, WAV and ADTS; and the interface of every container writer.

A stream's end is not known when its header is written. A writer lives as long as its stream and is given only the
packets that are really sent, so that its counters have no holes. Each `write` returns complete pages, clusters or
frames; nothing is held back.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Protocol

from service.audio.codecs import Packet

VENDOR = b"mynah"
_UNKNOWN_LENGTH = 0xFFFFFFFF
_WAV_HEADER_BYTES = 44


class Writer(Protocol):
    """Packets in the order in which they are sent; the first call's bytes begin with the header."""

    def write(self, packets: Sequence[Packet]) -> bytes: ...


class Raw:
    """Packets as they are: raw samples, MP3 frames."""

    def write(self, packets: Sequence[Packet]) -> bytes:
        return b"".join(packet.data for packet in packets)


class Wav:
    """16-bit PCM behind a header of unknown length."""

    def __init__(self, rate_hz: int) -> None:
        form = struct.pack("<HHIIHH", 1, 1, rate_hz, rate_hz * 2, 2, 16)  # PCM, mono, bytes/s, bytes/frame, bits
        size = struct.pack("<I", _UNKNOWN_LENGTH)
        self._header = b"RIFF" + size + b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + size

    def write(self, packets: Sequence[Packet]) -> bytes:
        header, self._header = self._header, b""
        return header + b"".join(packet.data for packet in packets)


def with_known_length(wav: bytearray) -> None:
    """Writes the lengths into the header of a whole WAV file of `Wav`, which has none before."""
    wav[4:8] = struct.pack("<I", len(wav) - 8)
    wav[_WAV_HEADER_BYTES - 4 : _WAV_HEADER_BYTES] = struct.pack("<I", len(wav) - _WAV_HEADER_BYTES)


class Adts:
    """AAC-LC frames, each behind MPEG-4's 7-byte header (ISO/IEC 14496-3, 1.A.2)."""

    _RATES_HZ = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)

    def __init__(self, rate_hz: int) -> None:
        profile, channels = 1, 1  # LC, mono
        self._fixed = profile << 14 | self._RATES_HZ.index(rate_hz) << 10 | channels << 6

    def write(self, packets: Sequence[Packet]) -> bytes:
        return b"".join(self._header(len(packet.data)) + packet.data for packet in packets)

    def _header(self, data_bytes: int) -> bytes:
        length = data_bytes + 7
        buffer_fullness, sync = 0x7FF, 0xFFF1  # variable rate; MPEG-4, no checksum
        return struct.pack(
            ">HHBBB",
            sync,
            self._fixed | length >> 11,
            length >> 3 & 0xFF,
            (length & 7) << 5 | buffer_fullness >> 6,
            (buffer_fullness & 0x3F) << 2,
        )
