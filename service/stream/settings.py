"""The settings of one stream."""

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
