"""Word times and the guard on words with T3 on the real vLLM engine: a net of T3's first layers reads along."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import engines
from engines.api import AudioChunk, Segment, SegmentDone, Words, WordTime
from engines.config import EngineConfig, Sampling
from engines.errors import EngineFailure
from engines.model_spec import SAMPLES_PER_TOKEN
from engines.pipeline import Pipeline
from engines.t3.alignment.sources import ForcedAligner
from engines.t3.vllm.backend import VllmT3Backend
from tests.vllm.setting import runner

TEXTS = ("The old train leaves at seven, with many people.", "We open at noon, as on all other days.")


def load(t3: str, folder: Path) -> Pipeline:
    config = EngineConfig(
        model="tiny", device="cpu", threads=1, max_streams=2, t3=t3, t3_dtype="float32", decode="reference",
        cache_dir=folder,
    )  # fmt: skip
    engine = engines.load(config)
    assert isinstance(engine, Pipeline)
    return engine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("words")


@pytest.fixture(scope="module")
def on_vllm(folder: Path) -> Iterator[Pipeline]:
    engine = load("vllm", folder)
    yield engine
    asyncio.run(engine.close())


async def spoken(engine: Pipeline, text: str, seed: int, *, guarded: bool = False) -> tuple[list[WordTime], int, str]:
    """The words, the samples, and what the guard did."""
    assert engine.default_voice is not None
    # few tokens to draw from: two implementations of T3 differ by rounding
    stream = await engine.open(engine.default_voice, Sampling(seed=seed, top_k=20, top_p=1.0))
    words: list[WordTime] = []
    samples, guard = 0, ""
    async for event in stream.speak(Segment(0, text, word_times=True, word_guard=guarded)):
        if isinstance(event, AudioChunk):
            samples += len(event.samples)
        elif isinstance(event, Words):
            words += event.words
        elif isinstance(event, SegmentDone):
            guard = str(event.stats.word_guard)
    await stream.close()
    return words, samples, guard


def test_words_are_those_of_t3_on_torch(on_vllm: Pipeline, folder: Path) -> None:
    """The same speech, so the same times; on torch they come from T3's own steps."""
    assert (on_vllm.info.t3_runtime, on_vllm.info.word_times) == ("vllm", True)
    assert isinstance(on_vllm.stages.aligner, ForcedAligner)
    on_torch = load("torch", folder)
    assert not isinstance(on_torch.stages.aligner, ForcedAligner)

    async def both(text: str) -> None:
        ours, samples, _ = await spoken(on_vllm, text, 5)
        theirs, expected_samples, _ = await spoken(on_torch, text, 5)
        assert samples == expected_samples
        assert [word.text for word in ours] == [word.text for word in theirs]
        for one, other in zip(ours, theirs, strict=True):
            assert abs(one.start_sample - other.start_sample) <= SAMPLES_PER_TOKEN
            assert abs(one.end_sample - other.end_sample) <= SAMPLES_PER_TOKEN

    for text in TEXTS:
        asyncio.run(both(text))
    asyncio.run(on_torch.close())


def test_streams_that_speak_together_share_passes(on_vllm: Pipeline) -> None:
    aligner = on_vllm.stages.aligner
    assert isinstance(aligner, ForcedAligner)

    async def together() -> tuple[int, int]:
        before = aligner.passes
        results = await asyncio.gather(*(spoken(on_vllm, text, seed) for seed, text in enumerate(TEXTS)))
        for words, samples, _ in results:
            assert len(words) > 6
            assert all(0 <= word.start_sample < word.end_sample <= samples for word in words)
        return aligner.passes - before, sum(samples for _, samples, _ in results) // SAMPLES_PER_TOKEN

    passes, tokens = asyncio.run(together())
    assert 0 < passes < tokens / 8, "a pass reads what came since the last window"


def test_the_guard_finds_nothing_in_speech_that_is_right(on_vllm: Pipeline) -> None:
    words, samples, guard = asyncio.run(spoken(on_vllm, TEXTS[0], 5, guarded=True))
    assert words[-1].text == "people"
    assert samples > 0
    assert guard == "None"


def test_a_segment_that_is_over_leaves_its_voice_alone_in_memory(on_vllm: Pipeline) -> None:
    aligner, voice = on_vllm.stages.aligner, on_vllm.default_voice
    assert isinstance(aligner, ForcedAligner)
    assert voice is not None
    asyncio.run(spoken(on_vllm, TEXTS[1], 5))
    aligner._thread.submit(lambda: None).result()  # behind what was to be forgotten
    assert list(aligner.reader._kept) == [voice.key]


def test_words_are_read_with_the_engines_own_weights_and_with_those_of_the_next_engine(on_vllm: Pipeline) -> None:
    aligner, backend = on_vllm.stages.aligner, on_vllm.stages.t3
    assert isinstance(aligner, ForcedAligner)
    assert isinstance(backend, VllmT3Backend)
    recovered, on_health = threading.Event(), backend.decoder._on_health

    def noting(healthy: bool) -> None:
        on_health(healthy)
        if healthy:
            recovered.set()

    def lose_the_device(*_: object) -> None:
        raise RuntimeError("device lost")

    def shares() -> bool:
        table = aligner._nets.call(lambda net: net._blocks[0]._fc._weight)
        block = runner(backend.decoder).model.transformer.h[0]
        return bool(table.data_ptr() == block.mlp.c_fc.weight.data_ptr())

    assert shares()
    before = asyncio.run(spoken(on_vllm, TEXTS[0], 5))
    backend.decoder._on_health = noting
    runner(backend.decoder).execute_model = lose_the_device
    with pytest.raises(EngineFailure, match="device lost"):
        asyncio.run(spoken(on_vllm, TEXTS[0], 5))
    assert recovered.wait(60)
    assert asyncio.run(spoken(on_vllm, TEXTS[0], 5)) == before
    assert shares()
