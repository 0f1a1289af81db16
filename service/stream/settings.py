"""The settings of one stream."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from engines.config import Sampling
from engines.errors import InvalidInput
from engines.text.dictionary import EMPTY, Dictionary
from engines.time_scale import check_speed
from engines.voice import Voice
from service.audio.formats import AudioSettings
from service.stream.early_end import FirstSegment
from service.stream.text.items import MAX_PAUSE_S


class Markup(Enum):
    """What becomes of markup in a text.

    REFUSE: SSML is an error, HTML is removed. STRIP: both are removed. LITERAL: both are text. SSML: it is obeyed, and
    what cannot be is an error; HTML is removed. SSML_LENIENT: the same, and what cannot be obeyed is ignored.
    """

    REFUSE = "refuse"
    STRIP = "strip"
    LITERAL = "literal"
    SSML = "ssml"
    SSML_LENIENT = "ssml_lenient"


class UnspeakableText(Enum):
    """What becomes of a segment in a script that the model does not speak: it is skipped, or it ends the stream."""

    SKIP = "skip"
    REFUSE = "refuse"


class Emoji(Enum):
    """Whether emoji are left out or their names are spoken."""

    DROP = "drop"
    NAME = "name"


@dataclass(frozen=True)
class TextSettings:
    """How a stream's text is read.

    drop_thinking  drop what stands between <think> and </think>
    normalize      speak numbers, dates, addresses and so on as English words, leave out Markdown and code, and obey
                   [pause:0.5s]
    paragraph_pause_s  silence between two paragraphs; 0 to 10
    dictionary     respellings of words
    """

    markup: Markup = Markup.REFUSE
    unspeakable_text: UnspeakableText = UnspeakableText.SKIP
    drop_thinking: bool = False
    normalize: bool = False
    emoji: Emoji = Emoji.DROP
    paragraph_pause_s: float = 0.0
    dictionary: Dictionary = EMPTY

    def __post_init__(self) -> None:
        if not 0 <= self.paragraph_pause_s <= MAX_PAUSE_S:
            allowed = f"from 0 to {MAX_PAUSE_S:g}"
            message = f"text.paragraph_pause_s is {self.paragraph_pause_s}; it must be {allowed}."
            raise InvalidInput(
                "text.paragraph_pause_s", message, "PAUSE_TOO_LONG", value=self.paragraph_pause_s, allowed=allowed
            )


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
    continuity: bool = False
    language: str = "en"  # ISO 639-1

    def __post_init__(self) -> None:
        check_speed(self.speed)

    @property
    def used_first_segment(self) -> FirstSegment:
        """AUTO depends on time, and streams that name a seed repeat each other: they keep their sentences."""
        is_timed = self.first_segment is FirstSegment.AUTO
        return FirstSegment.SENTENCE if is_timed and self.sampling.repeatable else self.first_segment
