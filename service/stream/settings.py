"""The settings of one stream."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from engines.config import Sampling
from engines.time_scale import check_speed
from engines.voice import Voice
from service.audio.formats import AudioSettings
from service.stream.early_end import FirstSegment


class Markup(Enum):
    """What becomes of markup in a text.

    REFUSE: SSML is an error, HTML is removed. STRIP: both are removed. LITERAL: both are text.
    """

    REFUSE = "refuse"
    STRIP = "strip"
    LITERAL = "literal"


class UnspeakableText(Enum):
    """What becomes of a segment in a script that the model does not speak: it is skipped, or it ends the stream."""

    SKIP = "skip"
    REFUSE = "refuse"


@dataclass(frozen=True)
class TextSettings:
    """How a stream's text is read. `drop_thinking` drops what stands between <think> and </think>."""

    markup: Markup = Markup.REFUSE
    unspeakable_text: UnspeakableText = UnspeakableText.SKIP
    drop_thinking: bool = False


@dataclass(frozen=True)
class StreamSettings:
    """Everything a stream is opened with, defaults filled in."""

    voice_id: str
    voice: Voice
    audio: AudioSettings
    sampling: Sampling
    text: TextSettings = TextSettings()
    speed: float = 1.0  # at which the stream begins
    first_segment: FirstSegment = FirstSegment.AUTO
    word_times: bool = False
    word_guard: bool = False

    def __post_init__(self) -> None:
        check_speed(self.speed)

    @property
    def used_first_segment(self) -> FirstSegment:
        """AUTO depends on time, and streams that name a seed repeat each other: they keep their sentences."""
        is_timed = self.first_segment is FirstSegment.AUTO
        return FirstSegment.SENTENCE if is_timed and self.sampling.repeatable else self.first_segment
