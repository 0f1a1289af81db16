"""The settings of one stream, and the limits of all."""

from __future__ import annotations

from dataclasses import dataclass

from engines.config import Sampling
from engines.voice import Voice
from service.audio.formats import AudioSettings


@dataclass(frozen=True)
class StreamSettings:
    """Everything a stream is opened with, defaults filled in."""

    voice_id: str
    voice: Voice
    audio: AudioSettings
    sampling: Sampling


@dataclass(frozen=True)
class SessionLimits:
    """How much the server keeps for one stream at a time."""

    max_pending_text_chars: int = 20_000
    max_pending_flushes: int = 1_000
    send_queue_events: int = 8  # chunks and other events made ahead of a slow reader
