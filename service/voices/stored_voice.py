"""A Voice under its id, and the summary that lists show of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from engines.model_spec import SPEECH_TOKENS_PER_S
from engines.voice import MODEL, Voice, VoiceHeader
from engines.voice_report import VoiceReport
from service.voices.ids import DEFAULT_VOICE_ID

_CREATED = "created"  # metadata key
_RECORDING, _LEVELLED = "recording", "recording_levelled"  # of a voice whose recording is kept


@dataclass(frozen=True)
class VoiceSummary:
    """A voice in a list.

    created       None for built-in voices
    reference_s   seconds of speech that the voice continues
    report        what is known about its recording; None for built-in voices and older ones
    model         the model that it was made with; empty if it is not known
    recording     the id of its recording; empty if that was not kept
    levelled      whether its recording was brought to one loudness
    """

    voice_id: str
    name: str
    created: datetime | None
    reference_s: float
    report: VoiceReport | None
    model: str
    recording: str = field(default="", kw_only=True)
    levelled: bool = field(default=True, kw_only=True)

    @property
    def built_in(self) -> bool:
        return self.created is None


@dataclass(frozen=True)
class StoredVoice(VoiceSummary):
    """A VoiceSummary with its Voice."""

    voice: Voice


def stamped(voice: Voice) -> Voice:
    """The voice with the present time, in whole seconds, as its time of creation."""
    created = datetime.now(UTC).replace(microsecond=0)
    return replace(voice, metadata={**voice.metadata, _CREATED: created.isoformat()})


def with_recording(voice: Voice, recording: str, *, levelled: bool) -> Voice:
    """The voice with the id of its recording, and whether that was brought to one loudness."""
    return replace(voice, metadata={**voice.metadata, _RECORDING: recording, _LEVELLED: str(levelled).lower()})


def remade(voice: Voice, former: Voice) -> Voice:
    """A voice made again from its recording: with what the former one says of its creation."""
    kept = {key: text for key, text in former.metadata.items() if key not in voice.metadata}
    return replace(voice, name=former.name, metadata={**kept, **voice.metadata})


def built_in(voice: Voice, voice_id: str = DEFAULT_VOICE_ID) -> StoredVoice:
    """A voice that is not stored, under a built-in voice's id."""
    return StoredVoice(voice_id, voice.name, None, _seconds(len(voice.t3_prompt_tokens)), None, "", voice)


def stored(voice_id: str, voice: Voice) -> StoredVoice:
    """Raises KeyError or ValueError if the voice has no time of creation, or a malformed report."""
    created = datetime.fromisoformat(voice.metadata[_CREATED])
    report = VoiceReport.of_metadata(voice.metadata)
    reference_s, model = _seconds(len(voice.t3_prompt_tokens)), voice.metadata.get(MODEL, "")
    return StoredVoice(
        voice_id, voice.name, created, reference_s, report, model, voice, **_recording_of(voice.metadata)
    )


def summary(voice_id: str, header: VoiceHeader) -> VoiceSummary:
    """Raises KeyError or ValueError if the voice has no time of creation, or a malformed report."""
    created = datetime.fromisoformat(header.metadata[_CREATED])
    report = VoiceReport.of_metadata(header.metadata)
    reference_s, model = _seconds(header.t3_prompt_tokens), header.metadata.get(MODEL, "")
    return VoiceSummary(voice_id, header.name, created, reference_s, report, model, **_recording_of(header.metadata))


def _recording_of(metadata: dict[str, str]) -> dict[str, Any]:
    return {"recording": metadata.get(_RECORDING, ""), "levelled": metadata.get(_LEVELLED, "true") == "true"}


def _seconds(speech_tokens: int) -> float:
    return speech_tokens / SPEECH_TOKENS_PER_S
