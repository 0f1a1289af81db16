"""Fixtures of the speech gate: the embedded model, its voices, and its speech for the texts of every set."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

import engines
from engines.checkpoints.checkpoint import EMBEDDED, Checkpoint, open_folder
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

    def __init__(self, checkpoint: Checkpoint, runtime: TorchRuntime) -> None:
        self.runtime = runtime
        self.voices = {
            "heart": load_builtin(checkpoint.folder / "conds.pt", "heart"),
            "alder": load_builtin(checkpoint.folder / "alder.pt", "alder"),
        }
        self._spoken: dict[tuple[str, tuple[Text, ...]], Spoken] = {}

    def spoken(self, voice: str, texts: tuple[Text, ...], t3: str = "torch") -> Spoken:
        key = (f"{voice} {t3}", texts)
        if key not in self._spoken:
            speech_tokens = asyncio.run(_speech_tokens(t3, self.voices[voice], texts))
            renderings = [render(self.runtime, one, self.voices[voice], OFFLINE) for one in speech_tokens]
            recognised = [recognise(one.samples, SAMPLE_RATE_HZ) for one in renderings]
            self._spoken[key] = Spoken(texts, self.voices[voice], speech_tokens, renderings, recognised)
        return self._spoken[key]

    def clip(self, voice: str) -> tuple[F32, int]:
        """Returns samples of CLIP_S seconds in a voice, and their rate."""
        samples = np.concatenate([one.samples for one in self.spoken(voice, DECODED).renderings])
        return samples[: round(CLIP_S * SAMPLE_RATE_HZ)], SAMPLE_RATE_HZ


async def _speech_tokens(t3: str, voice: Voice, texts: tuple[Text, ...]) -> list[list[int]]:
    engine = await asyncio.to_thread(engines.load, EngineConfig(model="tiny", device="cpu", t3=t3))
    assert isinstance(engine, Pipeline)
    try:
        return await speech_tokens_of(engine.stages.t3, engine, [text.text for text in texts], voice)
    finally:
        await engine.close()


@pytest.fixture(scope="package")
def checkpoint() -> Checkpoint:
    return open_folder(EMBEDDED)


@pytest.fixture(scope="package")
def torch_runtime(checkpoint: Checkpoint) -> TorchRuntime:
    return TorchRuntime(checkpoint, device="cpu")


@pytest.fixture(scope="package")
def builder(checkpoint: Checkpoint) -> VoiceBuilder:
    return VoiceBuilder(checkpoint)


@pytest.fixture(scope="package")
def model(checkpoint: Checkpoint, torch_runtime: TorchRuntime, builder: VoiceBuilder) -> Model:
    model = Model(checkpoint, torch_runtime)
    for name in tuple(model.voices):
        model.voices[f"clone of {name}"] = builder.build(wav_bytes(*model.clip(name)), f"clone of {name}")
    return model


@pytest.fixture(scope="package")
def offline(model: Model) -> Spoken:
    """The texts that are decoded in other ways, in the built-in voice."""
    return model.spoken("heart", DECODED)
