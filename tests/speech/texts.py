"""The texts of the speech gate, none of which the tiny model's training contains, and what its teacher made of them.

texts.json is written by `python -m tools.tiny.gate_texts`. MYNAH_SPEECH_TEXTS is the number of texts of each set
(default 3); `make test-speech` uses all.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from tests.speech.recogniser import words


@dataclass(frozen=True)
class Text:
    """A text, the duration of the teacher's speech, and the words of it that the recogniser gets wrong."""

    text: str
    teacher_s: float
    teacher_word_errors: int | None = None  # of a text that is judged by its duration alone: None
    said: str | None = None  # where the recogniser writes it otherwise: "dr" for "Doctor"

    @property
    def words(self) -> list[str]:
        return words(self.said or self.text)


def _few(texts: list[Text], count: int) -> tuple[Text, ...]:
    """`count` texts from everywhere in the set, which grow longer towards its end; all if there are not more."""
    last = len(texts) - 1
    return tuple(texts[i] for i in sorted({round(i * last / max(1, count - 1)) for i in range(min(count, len(texts)))}))


ALL = {
    name: [Text(**one) for one in texts]
    for name, texts in json.loads((Path(__file__).parent / "texts.json").read_text()).items()
}
SETS = {name: _few(texts, int(os.environ.get("MYNAH_SPEECH_TEXTS", "3"))) for name, texts in ALL.items()}
DECODED = SETS["agent"] + SETS["questions"]  # for comparisons of ways to decode and encode
