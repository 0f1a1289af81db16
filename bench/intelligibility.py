"""How well the shipped model's speech is understood: word error rates and durations of every set of texts.

Each text is spoken in the built-in voice, in the second voice, and in a clone of that one from a clip of 6 s, and
compared with what the model's teacher made of it (tests/speech/texts.json).
"""

from __future__ import annotations

import torch

from bench.report import publish, table
from engines.checkpoints.checkpoint import EMBEDDED, open_folder
from engines.conditioning.builder import VoiceBuilder
from engines.model_spec import SAMPLE_RATE_HZ
from engines.s3gen.runtimes.torch import TorchRuntime
from tests.speech.model import Model, Spoken, teacher_rate
from tests.speech.recogniser import speech_duration_s
from tests.speech.texts import ALL

_VOICES = ("heart", "alder", "clone of alder")
_SETS = ("balanced", "agent", "long", "names", "questions", "demo", "words", "random")


def _scores(spoken: Spoken) -> dict[str, float]:
    ratios = [
        speech_duration_s(one.samples, SAMPLE_RATE_HZ) / text.teacher_s
        for text, one in zip(spoken.texts, spoken.renderings, strict=True)
    ]
    durations = {"shortest": min(ratios), "longest": max(ratios)}
    if spoken.texts[0].teacher_word_errors is None:
        return durations
    return {"wer": spoken.word_error_rate, "teacher": teacher_rate(spoken.texts)} | durations


def _fits(voice: str, name: str) -> bool:
    """Two hundred random texts, judged by their durations, take minutes: they are spoken in the two voices alone."""
    return name != "random" or not voice.startswith("clone")


def main() -> None:
    torch.set_num_threads(2)
    checkpoint = open_folder(EMBEDDED)
    model = Model(checkpoint, TorchRuntime(checkpoint, device="cpu"), VoiceBuilder(checkpoint))
    model.add_clone("alder")
    results = {
        voice: {name: _scores(model.spoken(voice, tuple(ALL[name]))) for name in _SETS if _fits(voice, name)}
        for voice in _VOICES
    }
    header = ["", "WER", "teacher's", "shortest", "longest"]
    rows = [
        [f"{voice}, {name}", *(scores.get(key, "") for key in ("wer", "teacher", "shortest", "longest"))]
        for voice, sets in results.items()
        for name, scores in sets.items()
    ]
    publish("intelligibility", table(header, rows), {"voices": results})


if __name__ == "__main__":
    main()
