"""What is known about the recording behind a voice: which part is used, how good it is, how near the voice comes.

A report travels in a voice's metadata, which holds strings only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

_KEY = "report"  # in the metadata; voices that were made before there were reports lack it


@dataclass(frozen=True)
class VoiceWarning:
    """Something about a recording that makes a voice worse: `reason` for programs, `message` for people."""

    reason: str
    message: str


@dataclass(frozen=True)
class VoiceReport:
    """The used part of a recording, measured.

    used_from_s, used_s   the part's begin and length
    speech_share          of the part, 0 to 1
    speech_to_noise_db    how far the noise between the words lies below the speech, at most 60
    similarity            cosine of the speaker embeddings of the recording and of speech made with the voice, or None
    similarity_skipped    why there is no similarity, as a sentence
    """

    used_from_s: float
    used_s: float
    speech_share: float
    speech_to_noise_db: float
    warnings: tuple[VoiceWarning, ...] = ()
    similarity: float | None = None
    similarity_skipped: str = ""

    def in_metadata(self, metadata: Mapping[str, str]) -> dict[str, str]:
        """Returns `metadata` with this report."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["warnings"] = [[warning.reason, warning.message] for warning in self.warnings]
        return {**metadata, _KEY: json.dumps(values)}

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, str]) -> VoiceReport | None:
        """Returns the report in `metadata`, or None if it holds none. Raises ValueError if it is malformed."""
        if _KEY not in metadata:
            return None
        try:
            report = cls(**json.loads(metadata[_KEY]))
            return replace(report, warnings=tuple(VoiceWarning(*pair) for pair in report.warnings))  # type: ignore[misc]
        except (TypeError, ValueError) as error:
            raise ValueError(f"the voice's report is malformed ({error})") from error
