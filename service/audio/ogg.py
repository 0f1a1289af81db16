"""Opus in Ogg pages (RFC 3533, RFC 7845)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache

from service.audio.codecs import OPUS_LOOKAHEAD_SAMPLES, OPUS_RATE_HZ, Packet
from service.audio.containers import VENDOR


class OggOpus:
    """RFC 7845: two header pages, then one or more pages for each `write`; no page carries the end flag."""

    _SERIAL = 0x6D796E61
    _MAX_SEGMENTS = 255

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._pages = 0
        self._position = 0  # at 48 kHz, the lookahead included

    def write(self, packets: Sequence[Packet]) -> bytes:
        header = b"" if self._pages else self._header()
        return header + b"".join(self._page(group) for group in self._groups(packets))

    def _header(self) -> bytes:
        tags = b"OpusTags" + struct.pack("<I", len(VENDOR)) + VENDOR + struct.pack("<I", 0)
        first_page = 0x02
        return self._page([Packet(opus_head(self._rate_hz), 0)], first_page) + self._page([Packet(tags, 0)])

    def _groups(self, packets: Sequence[Packet]) -> list[list[Packet]]:
        """Packets by page: as many on each as its segment table holds."""
        groups: list[list[Packet]] = []
        free_segments = 0
        for packet in packets:
            needed = len(packet.data) // 255 + 1
            if needed > free_segments:
                groups.append([])
                free_segments = self._MAX_SEGMENTS
            groups[-1].append(packet)
            free_segments -= needed
        return groups

    def _page(self, packets: Sequence[Packet], flags: int = 0) -> bytes:
        self._position += sum(packet.samples for packet in packets) * OPUS_RATE_HZ // self._rate_hz
        lengths = b"".join(b"\xff" * (len(packet.data) // 255) + bytes([len(packet.data) % 255]) for packet in packets)
        head = struct.pack("<4sBBqII", b"OggS", 0, flags, self._position, self._SERIAL, self._pages)
        body = bytes([len(lengths)]) + lengths + b"".join(packet.data for packet in packets)
        self._pages += 1
        return head + struct.pack("<I", _ogg_crc(head + bytes(4) + body)) + body


def opus_head(rate_hz: int) -> bytes:
    """RFC 7845's identification header: mono, the lookahead that decoders skip, the input's sample rate."""
    return struct.pack("<8sBBHIhB", b"OpusHead", 1, 1, OPUS_LOOKAHEAD_SAMPLES, rate_hz, 0, 0)


def _ogg_crc(page: bytes) -> int:
    """Ogg's CRC-32: zlib's polynomial with every bit order reversed and without inversion at either end."""
    reversed_crc = zlib.crc32(page.translate(_reversed_bytes()), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reversed_crc:032b}"[::-1], 2)


@lru_cache(maxsize=1)
def _reversed_bytes() -> bytes:
    return bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
