"""How large and how long a recording may be, and the length that a file's first bytes state.

A surface asks here before it has received the whole of a recording, so that ten minutes of audio are refused by their
first bytes. Only WAV and FLAC state their length there; of other files it is known once they are decoded.
"""

from __future__ import annotations

import struct

from engines.errors import InvalidInput

MAX_REFERENCE_BYTES = 32 * 2**20  # a server's own limit is lower by default
MIN_REFERENCE_S = 5.0  # exclusive; upstream's bound
MAX_REFERENCE_S = 120.0
LENGTHS = f"more than {MIN_REFERENCE_S:.0f} s and at most {MAX_REFERENCE_S:.0f} s"
ADVICE = "10 to 20 s of one speaker are enough: send a part of the recording"
HEAD_BYTES = 4096  # of a file: enough for its header, but for a WAV file with much metadata before its audio
_CHUNK = struct.Struct("<4sI")
_UNKNOWN_BYTES = 0xFFFFFFFF  # of a WAV file's audio: it was written to a pipe, or it is an RF64 file
_MIN_FLAC_HEADER = 26


def too_large(subject: str, max_bytes: int, value: str) -> InvalidInput:
    """Returns the error of a recording with too many bytes. `subject` begins the sentence: the field, or a part of it.

    It says what may be sent in seconds: a person who records knows no bytes.
    """
    allowed = f"at most {max_bytes} bytes ({max_bytes / 1e6:.1f} MB) and {MAX_REFERENCE_S:.0f} s"
    message = f"{subject} is too large ({value}); it may have {allowed}. {ADVICE}."
    return InvalidInput("audio", message, "AUDIO_TOO_LARGE", value=value, allowed=allowed)


def wrong_length(value: str, reason: str) -> InvalidInput:
    """Returns the error AUDIO_TOO_SHORT or AUDIO_TOO_LONG of a recording that lasts `value`."""
    advice = f" {ADVICE}." if reason == "AUDIO_TOO_LONG" else ""
    message = f"audio is {value} long; it must be {LENGTHS}.{advice}"
    return InvalidInput("audio", message, reason, value=value, allowed=LENGTHS)


def check_head(head: bytes) -> None:
    """Raises InvalidInput with AUDIO_TOO_LONG if a file's first bytes state that it is longer than allowed.

    What they do not state, or state wrongly, is judged when the whole file is decoded.
    """
    stated_s = _wav_s(head) if head[:4] in (b"RIFF", b"RF64") else _flac_s(head)
    if stated_s is not None and stated_s > MAX_REFERENCE_S:
        raise wrong_length(f"{stated_s:.0f} s", "AUDIO_TOO_LONG")


def _wav_s(head: bytes) -> float | None:
    bytes_per_s, at = 0, 12
    while at + _CHUNK.size <= len(head):
        name, length = _CHUNK.unpack_from(head, at)
        at += _CHUNK.size
        if name == b"fmt " and at + 16 <= len(head):
            bytes_per_s = int.from_bytes(head[at + 8 : at + 12], "little")
        if name == b"data":
            return length / bytes_per_s if bytes_per_s and length != _UNKNOWN_BYTES else None
        at += length + length % 2
    return None


def _flac_s(head: bytes) -> float | None:
    if len(head) < _MIN_FLAC_HEADER or head[:4] != b"fLaC":
        return None
    packed = int.from_bytes(head[18:26], "big")  # 20 bits of rate, 3 of channels, 5 of depth, 36 of samples
    rate_hz, samples = packed >> 44, packed & (2**36 - 1)
    return samples / rate_hz if rate_hz and samples else None
