"""What every test of intelligibility starts from: the model that ships with us, its speech codes of a few sentences,
and how well one pass over each is understood.

MYNAH_SPEECH_SENTENCES (default 8) widens the slice; 40 are all, `make test-speech`.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

import pytest

import engines
from engines.checkpoints.checkpoint import EMBEDDED, Checkpoint, open_folder
from engines.conditioning.builder import VoiceBuilder
from engines.config import EngineConfig
from engines.model_spec import SAMPLE_RATE_HZ
from engines.pipeline import Pipeline
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.voice import Voice
from tests.clips import speech, wav_bytes
from tests.speech.recogniser import RATE_HZ, SENTENCES, spoken_by_flite, word_error_rate, words
from tests.speech.speaking import OFFLINE, Rendering, codes_of, render

ABOVE_TEACHER, ABOVE_OFFLINE = 0.10, 0.03  # word error rates
TEXTS = SENTENCES[: int(os.environ.get("MYNAH_SPEECH_SENTENCES", "8"))]
ONE_WORD = 1.0 / sum(len(words(text)) for text in TEXTS)


@dataclass(frozen=True)
class Offline:
    """`TEXTS` in one voice: their speech codes, one pass over each, and the word error rate of that."""

    voice: Voice
    codes: list[list[int]]
    renderings: list[Rendering]
    word_error_rate: float

    @property
    def allowed(self) -> float:
        """The word error rate of something that should be no worse; one word more is chance in so few."""
        return self.word_error_rate + max(ABOVE_OFFLINE, ONE_WORD)


def judge(renderings: list[Rendering]) -> float:
    pairs = [(text, one.samples) for text, one in zip(TEXTS, renderings, strict=True)]
    return word_error_rate(pairs, SAMPLE_RATE_HZ)


def teacher(voice: str) -> float:
    """flite's own word error rate."""
    return word_error_rate([(text, spoken_by_flite(text, voice)) for text in TEXTS], RATE_HZ)


async def codes_on(t3: str, voice: Voice | None = None) -> tuple[list[list[int]], Voice]:
    """Speech codes of `TEXTS` from a T3 backend; the voice is the built-in one unless given."""
    engine = await asyncio.to_thread(engines.load, EngineConfig(model="tiny", device="cpu", t3=t3))
    assert isinstance(engine, Pipeline)
    voice = voice or engine.default_voice
    assert voice is not None
    codes = await codes_of(engine.stages.t3, engine, TEXTS, voice)
    await engine.close()
    return codes, voice


def one_pass(runtime: TorchRuntime, codes: list[list[int]], voice: Voice) -> Offline:
    renderings = [render(runtime, one, voice, OFFLINE) for one in codes]
    return Offline(voice, codes, renderings, judge(renderings))


@pytest.fixture(scope="package")
def checkpoint() -> Checkpoint:
    return open_folder(EMBEDDED)


@pytest.fixture(scope="package")
def torch_runtime(checkpoint: Checkpoint) -> TorchRuntime:
    return TorchRuntime(checkpoint, device="cpu")


@pytest.fixture(scope="package")
def offline(torch_runtime: TorchRuntime) -> Offline:
    """The built-in voice, rms."""
    return one_pass(torch_runtime, *asyncio.run(codes_on("torch")))


@pytest.fixture(scope="package")
def builder(checkpoint: Checkpoint) -> VoiceBuilder:
    return VoiceBuilder(checkpoint)


@pytest.fixture(scope="package")
def voices(builder: VoiceBuilder) -> dict[str, Voice]:
    """Each voice of the model from a clip of it."""
    return {name: builder.build(wav_bytes(*speech(8.0, name)), name) for name in ("rms", "slt")}


@pytest.fixture(scope="package")
def of_a_clip(torch_runtime: TorchRuntime, voices: dict[str, Voice]) -> dict[str, Offline]:
    """The same in each voice that a clip selects."""
    return {name: one_pass(torch_runtime, *asyncio.run(codes_on("torch", voice))) for name, voice in voices.items()}
