"""Opus in WebM (Matroska, RFC 9559)."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from service.audio.codecs import OPUS_LOOKAHEAD_SAMPLES, OPUS_RATE_HZ, Packet
from service.audio.containers import VENDOR
from service.audio.ogg import opus_head

_PACKET_MS = 20


class WebmOpus:
    """Matroska's streamable subset: a segment of unknown length, and a cluster for each `write`."""

    _MAX_CLUSTER_MS = 32_000  # a block's time is 16 bits within its cluster

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._samples = 0
        self._header_written = False

    def write(self, packets: Sequence[Packet]) -> bytes:
        header = b"" if self._header_written else self._header()
        self._header_written = True
        return header + b"".join(self._cluster(group) for group in self._groups(packets))

    def _header(self) -> bytes:
        ebml = _element(
            0x1A45DFA3,
            _number(0x4286, 1), _number(0x42F7, 1), _number(0x42F2, 4), _number(0x42F3, 8),
            _element(0x4282, b"webm"), _number(0x4287, 4), _number(0x4285, 2),
        )  # fmt: skip
        milliseconds = 1_000_000
        info = _element(0x1549A966, _number(0x2AD7B1, milliseconds), _element(0x4D80, VENDOR), _element(0x5741, VENDOR))
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
        packet_count = self._MAX_CLUSTER_MS // _PACKET_MS
        return [packets[start : start + packet_count] for start in range(0, len(packets), packet_count)]

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
