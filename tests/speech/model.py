"""The embedded model's speech: texts in one of its voices, or a clone of one, and what the recogniser makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import engines
from engines.checkpoints.checkpoint import Checkpoint
from engines.conditioning.builder import VoiceBuilder
from engines.conditioning.builtin import load_builtin
from engines.config import EngineConfig
from engines.model_spec import SAMPLE_RATE_HZ
from engines.pipeline import Pipeline
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.voice import Voice
from tests.clips import wav_bytes
from tests.speech.recogniser import F32, errors, recognise
from tests.speech.speaking import OFFLINE, Rendering, render, speech_tokens_of
from tests.speech.texts import DECODED, Text

ABOVE_OFFLINE = 0.03  # word error rate
CLIP_S = 6.0


@dataclass(frozen=True)
class Spoken:
    """Texts in one voice: their speech tokens, each decoded in one pass, and the words that were recognised."""

    texts: tuple[Text, ...]
    voice: Voice
    speech_tokens: list[list[int]]
    renderings: list[Rendering]
    recognised: list[list[str]]

    @property
    def word_error_rate(self) -> float:
        return _rate(self.texts, self.recognised)

    @property
    def allowed(self) -> float:
        """The word error rate allowed for other ways to decode; two more wrong words may be chance."""
        return self.word_error_rate + max(ABOVE_OFFLINE, 2 * one_word(self.texts))


def one_word(texts: Sequence[Text]) -> float:
    """The share of one word in the word error rate of `texts`."""
    return 1 / sum(len(text.words) for text in texts)


def teacher_rate(texts: Sequence[Text]) -> float:
    return sum(text.teacher_word_errors or 0 for text in texts) * one_word(texts)


def rate(texts: Sequence[Text], samples: Sequence[F32], rate_hz: int = SAMPLE_RATE_HZ) -> float:
    """Returns the word error rate of speech."""
    return _rate(texts, [recognise(one, rate_hz) for one in samples])


def _rate(texts: Sequence[Text], recognised: Sequence[list[str]]) -> float:
    pairs = zip(texts, recognised, strict=True)
    return sum(errors(text.words, one) for text, one in pairs) * one_word(texts)


class Model:
    """The embedded model with an engine of its own for T3; speech is made once for each voice and set of texts."""

    def __init__(self, checkpoint: Checkpoint, runtime: TorchRuntime, builder: VoiceBuilder) -> None:
        self.runtime = runtime
        self.voices = {
            "heart": load_builtin(checkpoint.folder / "conds.pt", "heart"),
            "alder": load_builtin(checkpoint.folder / "alder.pt", "alder"),
        }
        self._builder = builder
        self._spoken: dict[tuple[str, tuple[Text, ...]], Spoken] = {}

    def spoken(self, voice: str, texts: tuple[Text, ...], t3: str = "torch") -> Spoken:
        key = (f"{voice} {t3}", texts)
        if key not in self._spoken:
            speech_tokens = asyncio.run(_speech_tokens(t3, self.voices[voice], texts))
            renderings = [render(self.runtime, one, self.voices[voice], OFFLINE) for one in speech_tokens]
            recognised = [recognise(one.samples, SAMPLE_RATE_HZ) for one in renderings]
            self._spoken[key] = Spoken(texts, self.voices[voice], speech_tokens, renderings, recognised)
        return self._spoken[key]

    def add_clone(self, voice: str) -> None:
        """Add "clone of VOICE", made from a clip of CLIP_S seconds of its speech."""
        samples = np.concatenate([one.samples for one in self.spoken(voice, DECODED).renderings])
        clip = wav_bytes(samples[: round(CLIP_S * SAMPLE_RATE_HZ)], SAMPLE_RATE_HZ)
        self.voices[f"clone of {voice}"] = self._builder.build(clip, f"clone of {voice}")


async def _speech_tokens(t3: str, voice: Voice, texts: tuple[Text, ...]) -> list[list[int]]:
    engine = await asyncio.to_thread(
        engines.load, EngineConfig(model="tiny", device="cpu", t3=t3, strict_reference=True)
    )
    assert isinstance(engine, Pipeline)
    try:
        return await speech_tokens_of(engine.stages.t3, engine, [text.text for text in texts], voice)
    finally:
        await engine.close()
