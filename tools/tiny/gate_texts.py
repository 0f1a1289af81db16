"""What the teacher makes of the texts of the speech gate: python -m tools.tiny.gate_texts RUN tests/speech/texts.json

Fills in the duration of each text in the teacher's voice and the words that the recogniser gets wrong, and writes the
set of random texts, which come from the examples that training never sees.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.speech.recogniser import errors, recognise, speech_duration_s, words
from tools.tiny.engine import SAMPLE_RATE_HZ
from tools.tiny.nets import Run
from tools.tiny.teacher import F32
from tools.tiny.texts import Writer

_RANDOM_TEXTS = 200
_MAX_CHARS = 250


def main() -> None:
    from hibari import Hibari  # type: ignore[import-not-found]

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of the training, for WordNet's examples")
    parser.add_argument("texts", type=Path)
    arguments = parser.parse_args()
    teacher = Hibari()
    sets: dict[str, list[dict[str, Any]]] = json.loads(arguments.texts.read_text())
    for name, texts in sets.items():
        if name != "random":
            sets[name] = [_judged(one, _spoken(teacher, one["text"])) for one in texts]
    random_texts = _random_texts(Run(arguments.run).wordnet)
    sets["random"] = [_timed({"text": text}, _spoken(teacher, text)) for text in random_texts]
    arguments.texts.write_text(_json(sets))


def _spoken(teacher: Any, text: str) -> F32:
    samples: F32 = np.asarray(teacher(text, seed=0), np.float32)
    return samples


def _timed(one: dict[str, Any], samples: F32) -> dict[str, Any]:
    return one | {"teacher_s": round(speech_duration_s(samples, SAMPLE_RATE_HZ), 3)}


def _judged(one: dict[str, Any], samples: F32) -> dict[str, Any]:
    wrong = errors(words(one.get("said", one["text"])), recognise(samples, SAMPLE_RATE_HZ))
    return _timed(one, samples) | {"teacher_word_errors": wrong}


def _random_texts(wordnet: Path) -> list[str]:
    """Texts of all kinds and lengths. The sentences of one kind follow each other, so every nth is taken."""
    written = Writer(wordnet, 2026, held_back=True).write(4 * _RANDOM_TEXTS, 0)
    fitting = [text for _, text in written if len(text) <= _MAX_CHARS and len(text.split()) <= 50]
    chosen = fitting[:: len(fitting) // _RANDOM_TEXTS][:_RANDOM_TEXTS]
    return [text[0].upper() + text[1:] for text in chosen]


def _json(sets: dict[str, list[dict[str, Any]]]) -> str:
    """One text on each line."""
    parts = []
    for name, texts in sets.items():
        lines = ",\n".join("  " + json.dumps(one, ensure_ascii=False) for one in texts)
        parts.append(f'"{name}": [\n{lines}\n]')
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    main()
