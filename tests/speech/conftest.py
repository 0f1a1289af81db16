"""Fixtures of the intelligibility tests: the embedded model, its speech tokens for some sentences, and their word error
rate when each is decoded in one pass.

MYNAH_SPEECH_SENTENCES (default 8) is the number of sentences; `make test-speech` uses all 40.
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
from tests.speech.speaking import OFFLINE, Rendering, render, speech_tokens_of

ABOVE_TEACHER, ABOVE_OFFLINE = 0.10, 0.03  # word error rates
TEXTS = SENTENCES[: int(os.environ.get("MYNAH_SPEECH_SENTENCES", "8"))]
ONE_WORD = 1.0 / sum(len(words(text)) for text in TEXTS)


@dataclass(frozen=True)
class Offline:
    """`TEXTS` in one voice: their speech tokens, each decoded in one pass, and the word error rate."""

    voice: Voice
    speech_tokens: list[list[int]]
    renderings: list[Rendering]
    word_error_rate: float

    @property
    def allowed(self) -> float:
        """The word error rate allowed for other ways to decode; one more wrong word may be chance."""
        return self.word_error_rate + max(ABOVE_OFFLINE, ONE_WORD)


def rate(renderings: list[Rendering]) -> float:
    pairs = [(text, one.samples) for text, one in zip(TEXTS, renderings, strict=True)]
    return word_error_rate(pairs, SAMPLE_RATE_HZ)


def teacher(voice: str) -> float:
    """The word error rate of flite, the teacher."""
    return word_error_rate([(text, spoken_by_flite(text, voice)) for text in TEXTS], RATE_HZ)


async def speech_tokens_on(t3: str, voice: Voice | None = None) -> tuple[list[list[int]], Voice]:
    """Returns speech tokens of `TEXTS` from a T3 backend, and the voice, by default the built-in one."""
    engine = await asyncio.to_thread(engines.load, EngineConfig(model="tiny", device="cpu", t3=t3))
    assert isinstance(engine, Pipeline)
    voice = voice or engine.default_voice
    assert voice is not None
    speech_tokens = await speech_tokens_of(engine.stages.t3, engine, TEXTS, voice)
    await engine.close()
    return speech_tokens, voice


def one_pass(runtime: TorchRuntime, speech_tokens: list[list[int]], voice: Voice) -> Offline:
    renderings = [render(runtime, one, voice, OFFLINE) for one in speech_tokens]
    return Offline(voice, speech_tokens, renderings, rate(renderings))


@pytest.fixture(scope="package")
def checkpoint() -> Checkpoint:
    return open_folder(EMBEDDED)


@pytest.fixture(scope="package")
def torch_runtime(checkpoint: Checkpoint) -> TorchRuntime:
    return TorchRuntime(checkpoint, device="cpu")


@pytest.fixture(scope="package")
def offline(torch_runtime: TorchRuntime) -> Offline:
    """The texts in the built-in voice, rms."""
    return one_pass(torch_runtime, *asyncio.run(speech_tokens_on("torch")))


@pytest.fixture(scope="package")
def builder(checkpoint: Checkpoint) -> VoiceBuilder:
    return VoiceBuilder(checkpoint)


@pytest.fixture(scope="package")
def voices(builder: VoiceBuilder) -> dict[str, Voice]:
    """The model's voices, each made from a clip."""
    return {name: builder.build(wav_bytes(*speech(8.0, name)), name) for name in ("rms", "slt")}


@pytest.fixture(scope="package")
def of_a_clip(torch_runtime: TorchRuntime, voices: dict[str, Voice]) -> dict[str, Offline]:
    """The texts in each voice that was made from a clip."""
    return {
        name: one_pass(torch_runtime, *asyncio.run(speech_tokens_on("torch", voice))) for name, voice in voices.items()
    }
