"""Tests of a whole engine with real nets of tiny size: properties of the audio that hold under all conditions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

import engines
from engines.api import AudioChunk, Engine, Segment, SegmentDone
from engines.config import EngineConfig, Sampling
from engines.errors import EngineBusy, InvalidInput
from engines.model_spec import SAMPLES_PER_TOKEN
from engines.s3gen.noise import F32
from tests.clips import speech, wav_bytes

TEXTS = ["Good morning to you all.", "The rain in Spain falls mainly on the plain.", "One, two, three, and away we go!"]


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module", params=["reference", "cached"])
def engine(runner: asyncio.Runner, request: pytest.FixtureRequest) -> Iterator[Engine]:
    engine = engines.load(
        EngineConfig(model="random:tiny", device="cpu", max_streams=4, decode=request.param, t3_dtype="float16")
    )
    yield engine
    runner.run(engine.close())


async def patient_open(engine: Engine, sampling: Sampling) -> engines.api.SpeechStream:
    """Retry as the error says: on a busy machine windows are late, and the engine then refuses a second stream."""
    assert engine.default_voice is not None
    while True:
        try:
            return await engine.open(engine.default_voice, sampling)
        except EngineBusy:
            await asyncio.sleep(0.5)


@asynccontextmanager
async def opened(engine: Engine, seed: int) -> AsyncIterator[engines.api.SpeechStream]:
    stream = await patient_open(engine, Sampling(seed=seed, max_speech_tokens=120))
    try:
        yield stream
    finally:
        await stream.close()


async def speak(engine: Engine, texts: list[str], seed: int) -> tuple[F32, list[SegmentDone]]:
    chunks, done = [], []
    async with opened(engine, seed) as stream:
        for index, text in enumerate(texts):
            async for event in stream.speak(Segment(index, text)):
                if isinstance(event, AudioChunk):
                    chunks.append(event.samples)
                elif isinstance(event, SegmentDone):
                    done.append(event)
    return np.concatenate(chunks), done


def test_the_chunks_make_up_the_declared_duration(runner: asyncio.Runner, engine: Engine) -> None:
    samples, done = runner.run(speak(engine, TEXTS, seed=1))
    assert len(samples) == sum(event.stats.samples for event in done)
    assert all(event.stats.samples == event.stats.speech_tokens * SAMPLES_PER_TOKEN for event in done)
    assert np.isfinite(samples).all()
    assert np.abs(samples).max() <= 1.0
    assert samples.std() > 1e-3, "silence instead of sound"


def test_every_segment_starts_with_upstreams_fade(runner: asyncio.Runner, engine: Engine) -> None:
    samples, done = runner.run(speak(engine, TEXTS[:2], seed=2))
    second = done[0].stats.samples
    for start in (0, second):
        assert not samples[start : start + 480].any()
        assert samples[start + 960 : start + 2000].any()


def test_a_repeated_seed_gives_the_same_bytes(runner: asyncio.Runner, engine: Engine) -> None:
    first, _ = runner.run(speak(engine, TEXTS[:2], seed=3))
    again, _ = runner.run(speak(engine, TEXTS[:2], seed=3))
    other, _ = runner.run(speak(engine, TEXTS[:2], seed=4))
    assert first.tobytes() == again.tobytes()
    assert len(first) != len(other) or not np.allclose(first, other, atol=1e-2)


def test_concurrent_streams_equal_sequential_streams(runner: asyncio.Runner, engine: Engine) -> None:
    async def concurrently() -> list[tuple[F32, list[SegmentDone]]]:
        return await asyncio.gather(*(speak(engine, [text], seed=i) for i, text in enumerate(TEXTS)))

    sequential = [runner.run(speak(engine, [text], seed=i)) for i, text in enumerate(TEXTS)]
    for (alone, _), (concurrent, _) in zip(sequential, runner.run(concurrently()), strict=True):
        assert len(alone) == len(concurrent), "the speech tokens differ"
        assert np.abs(alone - concurrent).max() < 1e-3


def test_later_text_never_changes_audio_already_sent(runner: asyncio.Runner, engine: Engine) -> None:
    short, _ = runner.run(speak(engine, TEXTS[:1], seed=5))
    longer, _ = runner.run(speak(engine, TEXTS, seed=5))
    assert longer[: len(short)].tobytes() == short.tobytes()


def test_cancelling_a_segment_leaves_the_engine_unchanged(runner: asyncio.Runner, engine: Engine) -> None:
    async def cancel() -> None:
        async with opened(engine, seed=6) as stream:
            speaking = stream.speak(Segment(0, TEXTS[1]))
            async for event in speaking:
                if isinstance(event, AudioChunk):
                    break
            await speaking.aclose()

    before, _ = runner.run(speak(engine, TEXTS[:1], seed=7))
    for _ in range(8):  # more often than there are slots
        runner.run(cancel())
    after, _ = runner.run(speak(engine, TEXTS[:1], seed=7))
    assert before.tobytes() == after.tobytes()


def test_a_cloned_voice_speaks_and_differs_from_the_built_in_one(runner: asyncio.Runner, engine: Engine) -> None:
    voice = runner.run(engine.make_voice(wav_bytes(*speech(8.0)), name="slt"))
    assert engine.default_voice is not None
    assert voice.key != engine.default_voice.key

    async def say() -> F32:
        stream = await engine.open(voice, Sampling(seed=1, max_speech_tokens=60))
        chunks = [e.samples async for e in stream.speak(Segment(0, TEXTS[0])) if isinstance(e, AudioChunk)]
        await stream.close()
        return np.concatenate(chunks)

    assert runner.run(say()).std() > 1e-3


def test_an_unknown_decode_mode_is_refused() -> None:
    with pytest.raises(InvalidInput, match="reference, cached"):
        engines.load(EngineConfig(model="random:tiny", decode="guess"))
