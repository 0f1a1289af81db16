"""A whole engine of standard's and Multilingual's family at tiny size: guidance, languages, voices and refusals."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import engines
from engines.api import AudioChunk, Segment, SegmentDone
from engines.config import EngineConfig
from engines.errors import InvalidInput
from engines.factory import _defaults
from engines.model_spec import MULTILINGUAL, SAMPLES_PER_TOKEN, STANDARD, TURBO
from engines.pipeline import Pipeline
from engines.t3.family import LLAMA
from engines.t3.guidance import VARIABLE
from engines.text.languages import japanese
from engines.text.languages.workers import LanguageWorkers
from engines.voice import Voice
from tests.clips import speech, wav_bytes

CONFIG = EngineConfig(model="random:multilingual-tiny", device="cpu", threads=1, max_streams=3, strict_reference=True)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def engine(runner: asyncio.Runner) -> Iterator[Pipeline]:
    engine = engines.load(CONFIG)
    assert isinstance(engine, Pipeline)
    yield engine
    runner.run(engine.close())


def shortened(voice: Voice) -> Voice:
    """A voice whose prompt takes S3Gen less time."""
    tokens, mel = voice.s3gen_prompt_tokens[:10].copy(), voice.s3gen_prompt_mel[:20].copy()
    return replace(voice, s3gen_prompt_tokens=tokens, s3gen_prompt_mel=mel)


async def spoken(engine: Pipeline, text: str, language: str = "", **sampling: object) -> np.ndarray:
    assert engine.default_voice is not None
    settings = replace(engine.info.sampling, seed=4, max_speech_tokens=20, **sampling)
    stream = await engine.open(shortened(engine.default_voice), settings)
    samples = []
    async for event in stream.speak(Segment(0, text, language=language)):
        if isinstance(event, AudioChunk):
            samples.append(event.samples)
        elif isinstance(event, SegmentDone):
            assert event.stats.samples == event.stats.speech_tokens * SAMPLES_PER_TOKEN
    await stream.close()
    return np.concatenate(samples)


def test_it_says_what_its_model_has(engine: Pipeline) -> None:
    info = engine.info
    assert (info.guidance, info.has_exaggeration, info.has_min_p) == (True, True, True)
    assert info.languages == MULTILINGUAL.languages
    assert (info.sampling.cfg_weight, info.sampling.min_p, info.sampling.top_p, info.sampling.top_k) == (
        0.5,
        0.05,
        1,
        0,
    )
    assert info.voice_models == ("random:standard-tiny", "random:multilingual-tiny")
    assert info.tags == ()


def test_streams_of_different_weights_and_languages_speak_together(runner: asyncio.Runner, engine: Pipeline) -> None:
    asked = [("Guten Tag, Köln.", "de", 0.5), ("Guten Tag, Köln.", "de", 0.0), ("안녕하세요", "ko", 1.0)]

    async def together() -> list[np.ndarray]:
        return await asyncio.gather(
            *(spoken(engine, text, language, cfg_weight=weight) for text, language, weight in asked)
        )

    samples = runner.run(together())
    assert len({each.tobytes() for each in samples}) == 3
    for (text, language, weight), each in zip(asked, samples, strict=True):
        alone = runner.run(spoken(engine, text, language, cfg_weight=weight))
        assert len(alone) == len(each)
        np.testing.assert_allclose(alone, each, atol=2e-3)  # a batch of windows rounds differently
        assert np.isfinite(each).all()
        assert each.std() > 1e-3


def test_an_unknown_language_is_refused_before_any_audio(runner: asyncio.Runner, engine: Pipeline) -> None:
    with pytest.raises(InvalidInput, match="'xx'"):
        runner.run(spoken(engine, "Hello", "xx"))


def test_a_clone_speaks(runner: asyncio.Runner, engine: Pipeline) -> None:
    samples, rate_hz = speech(6.5)
    voice = runner.run(engine.make_voice(wav_bytes(samples, rate_hz), name="clone"))
    assert voice.metadata["model"] == "random:multilingual-tiny"
    assert len(voice.t3_prompt_tokens) == 150
    own = engine.default_voice
    engine.default_voice = voice
    assert len(runner.run(spoken(engine, "Hello.")))
    engine.default_voice = own


def test_voices_are_shared_within_the_family_alone() -> None:
    assert STANDARD.voice_models == ("standard", "multilingual", "multilingual-v2")
    assert MULTILINGUAL.voice_models == STANDARD.voice_models
    assert not set(STANDARD.voice_models) & set(TURBO.voice_models)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"t3": "onnx"}, "t3 is onnx, which standard-tiny does not support; allowed here: auto, torch or vllm"),
        ({"t3": "torch_graphs"}, "allowed here: auto, torch or vllm"),
        ({"attention": "constrained"}, "attention is constrained, which standard-tiny does not support"),
        ({"model": "random:tiny", "lora": (Path("/a"),)}, "lora is /a, which tiny does not support"),
    ],
)
def test_what_a_family_does_not_support_is_refused(changed: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        engines.load(replace(CONFIG, **{"model": "random:standard-tiny", **changed}))


def test_the_environments_weight_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1.25")
    assert _defaults(LLAMA, beside_guided=False) == replace(LLAMA.sampling, cfg_weight=1.25)


def test_slow_languages_have_a_thread_and_those_that_lack_something_are_listed(engine: Pipeline) -> None:
    assert engine.stages.slow_languages == {"he", "ja", "ru", "zh"}
    missing = dict(engine.info.missing_languages)
    assert missing["zh"]  # random weights have no table of codes
    assert set(missing) | set(engine.info.languages_here) == set(engine.info.languages)
    assert "en" in engine.info.languages_here


def test_a_front_end_that_takes_long_stops_no_other_stream(
    runner: asyncio.Runner, engine: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, released = threading.Event(), threading.Event()

    def read(text: str) -> str:
        entered.set()
        assert released.wait(300), "no other stream went on"
        return text

    monkeypatch.setattr(engine, "stages", replace(engine.stages, languages=LanguageWorkers(600.0, 600.0)))
    monkeypatch.setattr(japanese, "as_hiragana", read)
    monkeypatch.setattr("engines.text.languages.front_ends.check_packages", lambda language: None)

    async def both() -> tuple[np.ndarray, np.ndarray]:
        slow = asyncio.create_task(spoken(engine, "Sakura.", "ja"))
        assert await asyncio.to_thread(entered.wait, 300)
        other = await spoken(engine, "Good morning.", "en")
        assert not slow.done()
        released.set()
        return await slow, other

    slow, other = runner.run(both())
    assert min(len(slow), len(other)) > 0
