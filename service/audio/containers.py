"""Packets to bytes that a player opens: WAV, Ogg, WebM, FLAC and ADTS, written as a stream whose end is not known.

A writer lives as long as its stream and is given only what is really sent, so that its counters have no holes.
Each `write` gives complete pages, clusters or frames; nothing is held back. Pure: no codec, no connection.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

from service.audio.codecs import OPUS_LOOKAHEAD_SAMPLES, OPUS_RATE_HZ, Packet

_OPEN_LENGTH = 0xFFFFFFFF  # what a WAV header says when the length is not known yet
_VENDOR = b"mynah"


class Writer(Protocol):
    """Packets in the order in which they are sent; the first call's bytes begin with the header."""

    def write(self, packets: Sequence[Packet]) -> bytes: ...


class Bare:
    """Packets as they are: raw samples, MP3 frames."""

    def write(self, packets: Sequence[Packet]) -> bytes:
        return b"".join(packet.data for packet in packets)


class Wav:
    """16-bit PCM behind a header of open length."""

    def __init__(self, rate_hz: int) -> None:
        form = struct.pack("<HHIIHH", 1, 1, rate_hz, rate_hz * 2, 2, 16)  # PCM, mono, bytes/s, bytes/frame, bits
        sizes = struct.pack("<I", _OPEN_LENGTH)
        self._due = b"RIFF" + sizes + b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + sizes

    def write(self, packets: Sequence[Packet]) -> bytes:
        header, self._due = self._due, b""
        return header + b"".join(packet.data for packet in packets)


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


class OggOpus:
    """RFC 7845: two header pages, then one page or more for each `write`. The last page is not marked as such."""

    _SERIAL = 0x6D796E61
    _MOST_SEGMENTS = 255

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._pages = 0
        self._position = 0  # at 48 kHz, the lookahead included

    def write(self, packets: Sequence[Packet]) -> bytes:
        header = b"" if self._pages else self._header()
        return header + b"".join(self._page(group) for group in self._groups(packets))

    def _header(self) -> bytes:
        tags = b"OpusTags" + struct.pack("<I", len(_VENDOR)) + _VENDOR + struct.pack("<I", 0)
        begins = 0x02
        return self._page([Packet(opus_head(self._rate_hz), 0)], begins) + self._page([Packet(tags, 0)])

    def _groups(self, packets: Sequence[Packet]) -> list[list[Packet]]:
        """As many packets on each page as their lengths have room in its table."""
        groups: list[list[Packet]] = []
        room = 0
        for packet in packets:
            need = len(packet.data) // 255 + 1
            if need > room:
                groups.append([])
                room = self._MOST_SEGMENTS
            groups[-1].append(packet)
            room -= need
        return groups

    def _page(self, packets: Sequence[Packet], flags: int = 0) -> bytes:
        self._position += sum(packet.samples for packet in packets) * OPUS_RATE_HZ // self._rate_hz
        lengths = b"".join(b"\xff" * (len(packet.data) // 255) + bytes([len(packet.data) % 255]) for packet in packets)
        head = struct.pack("<4sBBqII", b"OggS", 0, flags, self._position, self._SERIAL, self._pages)
        body = bytes([len(lengths)]) + lengths + b"".join(packet.data for packet in packets)
        self._pages += 1
        return head + struct.pack("<I", _ogg_crc(head + bytes(4) + body)) + body


def opus_head(rate_hz: int) -> bytes:
    """RFC 7845's identification header: mono, the lookahead to be skipped, the rate it was made from."""
    return struct.pack("<8sBBHIhB", b"OpusHead", 1, 1, OPUS_LOOKAHEAD_SAMPLES, rate_hz, 0, 0)


def _ogg_crc(page: bytes) -> int:
    """CRC-32 as Ogg has it: zlib's polynomial with every bit order reversed, and no inversion at either end."""
    reversed_crc = zlib.crc32(page.translate(_reversed_bytes()), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reversed_crc:032b}"[::-1], 2)


@lru_cache(maxsize=1)
def _reversed_bytes() -> bytes:
    return bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class WebmOpus:
    """Matroska's streamable subset: a segment of unknown length, and a cluster for each `write`."""

    _MOST_CLUSTER_MS = 32_000  # a block's time is 16 bits within its cluster

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._samples = 0
        self._begun = False

    def write(self, packets: Sequence[Packet]) -> bytes:
        header = b"" if self._begun else self._header()
        self._begun = True
        return header + b"".join(self._cluster(group) for group in self._groups(packets))

    def _header(self) -> bytes:
        ebml = _element(
            0x1A45DFA3,
            _number(0x4286, 1), _number(0x42F7, 1), _number(0x42F2, 4), _number(0x42F3, 8),
            _element(0x4282, b"webm"), _number(0x4287, 4), _number(0x4285, 2),
        )  # fmt: skip
        milliseconds = 1_000_000
        info = _element(
            0x1549A966, _number(0x2AD7B1, milliseconds), _element(0x4D80, _VENDOR), _element(0x5741, _VENDOR)
        )
        audio = _element(0xE1, _element(0xB5, struct.pack(">d", float(OPUS_RATE_HZ))), _number(0x9F, 1))
        lookahead_ns = OPUS_LOOKAHEAD_SAMPLES * 1_000_000_000 // OPUS_RATE_HZ
        entry = _element(
            0xAE,
            _number(0xD7, 1), _number(0x73C5, 1), _number(0x83, 2), _element(0x86, b"A_OPUS"),
            _element(0x63A2, opus_head(self._rate_hz)), _number(0x56AA, lookahead_ns), _number(0x56BB, 80_000_000),
            audio,
        )  # fmt: skip
        unknown_length = b"\x01\xff\xff\xff\xff\xff\xff\xff"
        return ebml + b"\x18\x53\x80\x67" + unknown_length + info + _element(0x1654AE6B, entry)

    def _groups(self, packets: Sequence[Packet]) -> list[Sequence[Packet]]:
        most = self._MOST_CLUSTER_MS // 20
        return [packets[start : start + most] for start in range(0, len(packets), most)]

    def _cluster(self, packets: Sequence[Packet]) -> bytes:
        begin_ms = self._now_ms()
        blocks = []
        for packet in packets:
            track, keyframe = 0x81, 0x80
            blocks.append(_element(0xA3, struct.pack(">BhB", track, self._now_ms() - begin_ms, keyframe), packet.data))
            self._samples += packet.samples
        return _element(0x1F43B675, _number(0xE7, begin_ms), *blocks)

    def _now_ms(self) -> int:
        return self._samples * 1000 // self._rate_hz


def _element(identity: int, *content: bytes) -> bytes:
    body = b"".join(content)
    return _big_endian(identity) + struct.pack(">Q", len(body) | 1 << 56) + body


def _number(identity: int, value: int) -> bytes:
    return _element(identity, _big_endian(value))


def _big_endian(value: int) -> bytes:
    return value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")


class Flac:
    """RFC 9639 with blocks of any length, numbered by their first sample: segments end where they end.

    An encoder numbers its own frames from zero; each is given its place on the stream and checksums to match.
    """

    def __init__(self, rate_hz: int, block_samples: int) -> None:
        least_block, unknown, bits = 16, 0, 16
        form = rate_hz << 44 | (bits - 1) << 36  # 20 bits of rate, 3 of channels - 1, 5 of bits - 1, 36 of samples
        info = struct.pack(">HHHIQ16x", least_block, block_samples, unknown, unknown, form)
        self._due = b"fLaC" + b"\x80" + len(info).to_bytes(3, "big") + info
        self._samples = 0

    def write(self, packets: Sequence[Packet]) -> bytes:
        header, self._due = self._due, b""
        return header + b"".join(map(self._frame, packets))

    def _frame(self, packet: Packet) -> bytes:
        data = packet.data
        number_end = 4 + _coded_length(data[4])
        crc_at = number_end + _extra_bytes(data[2])
        sync, by_sample = data[1] & 0xFE, 0x01
        head = bytes([data[0], sync | by_sample]) + data[2:4] + _coded(self._samples) + data[number_end:crc_at]
        frame = head + bytes([_flac_crc8(head)]) + data[crc_at + 1 : -2]
        self._samples += packet.samples
        return frame + _flac_crc16(frame).to_bytes(2, "big")


def _extra_bytes(codes: int) -> int:
    """Bytes of block size and rate that a frame's header has because its codes say so."""
    return {6: 1, 7: 2}.get(codes >> 4, 0) + {12: 1, 13: 2, 14: 2}.get(codes & 0xF, 0)


def _coded_length(first: int) -> int:
    """Bytes of a number that is coded like UTF-8, by the first of them."""
    ones = 8 - (~first & 0xFF).bit_length()
    return ones or 1


def _coded(number: int) -> bytes:
    """A number of up to 36 bits coded like UTF-8."""
    if number < 0x80:
        return bytes([number])
    length = next(length for length in range(2, 8) if number < 1 << (5 * length + 1))
    tail = [0x80 | number >> 6 * place & 0x3F for place in reversed(range(length - 1))]
    return bytes([0xFF << (8 - length) & 0xFF | number >> 6 * (length - 1), *tail])


def _flac_crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc = _crc_table(0x07, 8)[crc ^ byte]
    return crc


def _flac_crc16(data: bytes) -> int:
    table = _crc_table(0x8005, 16)
    crc = 0
    for byte in data:
        crc = (crc << 8 & 0xFFFF) ^ table[crc >> 8 ^ byte]
    return crc


@lru_cache(maxsize=2)
def _crc_table(polynomial: int, bits: int) -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte << (bits - 8)
        for _ in range(8):
            crc = (crc << 1 ^ polynomial if crc >> (bits - 1) else crc << 1) & ((1 << bits) - 1)
        table.append(crc)
    return tuple(table)
