"""FLAC frames as one stream (RFC 9639)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache

from service.audio.codecs import Packet


class Flac:
    """RFC 9639 with blocks of variable length, numbered by their first sample.

    An encoder lives for one segment and numbers its frames from zero. Each frame's header is rewritten with its
    position in the stream, and both checksums with it.
    """

    def __init__(self, rate_hz: int, block_samples: int) -> None:
        min_block, unknown, bits = 16, 0, 16
        form = rate_hz << 44 | (bits - 1) << 36  # 20 bits of rate, 3 of channels - 1, 5 of bits - 1, 36 of samples
        info = struct.pack(">HHHIQ16x", min_block, block_samples, unknown, unknown, form)
        self._header = b"fLaC" + b"\x80" + len(info).to_bytes(3, "big") + info
        self._samples = 0

    def write(self, packets: Sequence[Packet]) -> bytes:
        header, self._header = self._header, b""
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
    """Bytes that a frame header spends on a block size and a rate, by the codes in its third byte."""
    return {6: 1, 7: 2}.get(codes >> 4, 0) + {12: 1, 13: 2, 14: 2}.get(codes & 0xF, 0)


def _coded_length(first: int) -> int:
    """Length in bytes of a number coded like UTF-8, given its first byte."""
    ones = 8 - (~first & 0xFF).bit_length()
    return ones or 1


def _coded(number: int) -> bytes:
    """A number of up to 36 bits, coded like UTF-8."""
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
