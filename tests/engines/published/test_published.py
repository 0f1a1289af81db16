"""The published ONNX graphs: the checks of a folder, tokens equal to the nets', and an engine on the graphs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import engines
from engines.api import AudioChunk, Engine, Segment, SegmentDone
from engines.checkpoints.checkpoint import open_checkpoint
from engines.checkpoints.hub import HubUnreachable
from engines.config import EngineConfig, Sampling
from engines.errors import InvalidInput
from engines.onnx.session import SessionSettings
from engines.published.graphs import REPOSITORY, PublishedGraphsError, find_published, open_published
from engines.published.language import PublishedNet
from engines.t3.backend import T3Generation, T3Request
from engines.t3.decoder import DecoderLimits
from engines.t3.local_backend import LocalT3Backend
from engines.t3.sampler import Sampler
from engines.voice import Voice
from tests.clips import speech, wav_bytes
from tests.engines.fakes import make_voice
from tests.engines.published import graphs

CPU = SessionSettings(("cpu",), 1)
TEXT = "Good morning to you all."


class NoHub:
    """A hub that does not answer."""

    def cached(self, repo_id: str, files: Sequence[str]) -> list[Path]:
        return []

    def download(self, repo_id: str, files: Sequence[str]) -> Path:
        raise HubUnreachable(repo_id, "ConnectionError")


def tokenizer_folder() -> Path:
    return open_checkpoint("random:tiny", cache_dir=None, device="cpu").folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("published")
    graphs.write_set(folder, tokenizer_folder())
    return folder


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def engine(runner: asyncio.Runner, folder: Path) -> Iterator[Engine]:
    engine = engines.load(EngineConfig(model=str(folder), max_streams=2))
    yield engine
    runner.run(engine.close())


@pytest.fixture(scope="module")
def voice(runner: asyncio.Runner, engine: Engine) -> Voice:
    return runner.run(engine.make_voice(wav_bytes(*speech(5.5)), name="clip"))


def test_a_folder_is_recognised_by_its_graphs(folder: Path, tmp_path: Path) -> None:
    hub = NoHub()
    assert find_published(str(folder), hub) == folder
    assert find_published(str(folder / "onnx"), hub) == folder / "onnx"
    assert find_published(str(tmp_path), hub) is None
    assert find_published("random:tiny", hub) is None
    opened = open_published(folder)
    assert (opened.layers, opened.heads, opened.head_width) == (graphs.LAYERS, graphs.HEADS, graphs.HEAD_WIDTH)


@pytest.mark.parametrize("without", ["speech_encoder", "conditional_decoder"])
def test_a_missing_graph_is_named(tmp_path: Path, without: str) -> None:
    graphs.write_set(tmp_path / "set", tokenizer_folder(), without=without)
    with pytest.raises(PublishedGraphsError, match=rf"{without}\.onnx missing"):
        open_published(tmp_path / "set")


def test_every_missing_input_and_output_is_named_at_once(tmp_path: Path) -> None:
    renamed = {
        "audio_tokens": "prompt", "speech_tokens": "tokens", "present.1.key": "present.1.k",
        "past_key_values.0.value": "past.0",
    }  # fmt: skip
    graphs.write_set(tmp_path / "set", tokenizer_folder(), renamed=renamed)
    with pytest.raises(PublishedGraphsError) as caught:
        open_published(tmp_path / "set")
    for named in (
        "speech_encoder.onnx: output audio_tokens is missing",
        "conditional_decoder.onnx: input speech_tokens is missing",
        "conditional_decoder.onnx: unknown input tokens",
        "language_model.onnx: output present.1.key is missing",
        "language_model.onnx: input past_key_values.0.value is missing",
    ):
        assert named in str(caught.value)
    with pytest.raises(PublishedGraphsError):  # before anything is served
        engines.load(EngineConfig(model=str(tmp_path / "set")))


def test_the_repository_comes_from_the_hub_and_its_absence_names_it() -> None:
    with pytest.raises(HubUnreachable, match=REPOSITORY):
        find_published("turbo-onnx", NoHub())


@torch.inference_mode()
def spoken_without_cache(voice: Voice, text: tuple[int, ...], sampling: Sampling, count: int) -> list[int]:
    """Tokens from the test's own nets; every token reads the whole sequence."""
    torch.manual_seed(0)
    embed, language = graphs.Embed(), graphs.Language()
    assert voice.t3_prefix is not None
    ids = torch.tensor([[*text, graphs.END_OF_TEXT, graphs.END_OF_TEXT]])
    rows = torch.cat([torch.tensor(voice.t3_prefix)[None], embed(ids)], dim=1)
    sampler, tokens = Sampler(1, torch.device("cpu")), list[int]()
    sampler.begin(0, sampling)
    nothing = [torch.zeros(1, graphs.HEADS, 0, graphs.HEAD_WIDTH) for _ in range(2 * graphs.LAYERS)]
    while len(tokens) < count:
        length = rows.shape[1]
        logits, *_ = language(rows, torch.ones(1, length).long(), torch.arange(length)[None], *nothing)
        tokens += sampler.sample([0], logits[:, -1])
        rows = torch.cat([rows, embed(torch.tensor([[tokens[-1]]]))], dim=1)
    return tokens


def published_voice(rows: int, seed: int = 0) -> Voice:
    plain, rng = make_voice(20, f"voice {seed}"), np.random.default_rng(seed)
    prefix = rng.standard_normal((rows, graphs.WIDTH), dtype=np.float32)
    return Voice(**{**vars(plain), "t3_prefix": prefix})


async def speech_tokens_of(backend: LocalT3Backend, request: T3Request) -> list[int]:
    generation, speech_tokens = backend.start(request), list[int]()
    while more := await generation.next_speech_tokens():
        speech_tokens += more
    return speech_tokens


def test_tokens_are_those_of_the_nets_for_mixed_requests_and_a_known_voice(
    runner: asyncio.Runner, folder: Path
) -> None:
    backend = LocalT3Backend(PublishedNet(open_published(folder), CPU), DecoderLimits(2, 512))
    voices = [published_voice(130), published_voice(7, seed=1)]  # more and less than one chunk
    requests = [
        T3Request((5, 6, 7), voices[0], Sampling(temperature=0, max_speech_tokens=12)),
        T3Request((8, graphs.END_OF_TEXT), voices[1], Sampling(seed=4, max_speech_tokens=20)),
        T3Request((9, 10), voices[0], Sampling(seed=5, max_speech_tokens=9)),
    ]

    async def all_at_once() -> list[list[int]]:
        first = await asyncio.gather(*(speech_tokens_of(backend, request) for request in requests))
        again = await speech_tokens_of(backend, requests[0])  # its voice's prefix is cached
        await backend.close()
        return [*first, again]

    results = runner.run(all_at_once())
    for request, speech_tokens in zip([*requests, requests[0]], results, strict=True):
        text = tuple(token for token in request.text_tokens if token != graphs.END_OF_TEXT)
        count = 1 + request.sampling.max_speech_tokens
        raw = spoken_without_cache(request.voice, text, request.sampling, count)
        assert speech_tokens == [*(token for token in raw if token < 6561), 4299, 4299, 4299]


def test_a_promoted_request_goes_before_one_that_is_made_ahead(runner: asyncio.Runner, folder: Path) -> None:
    backend = LocalT3Backend(PublishedNet(open_published(folder), CPU), DecoderLimits(1))
    voice = published_voice(7)
    long, short = Sampling(max_speech_tokens=1000), Sampling(max_speech_tokens=5)

    async def first_tokens() -> list[int]:
        running = backend.start(T3Request((5,), voice, long))
        await running.next_speech_tokens()
        waiting = [backend.start(T3Request((n,), voice, short, made_ahead=True)) for n in (6, 7, 8)]
        begun: list[T3Generation] = []

        async def begin(generation: T3Generation) -> None:
            await generation.next_speech_tokens()
            begun.append(generation)

        beginning = asyncio.gather(*(begin(generation) for generation in waiting))
        waiting[1].promote()
        await running.cancel()
        await beginning
        await backend.close()
        return [waiting.index(generation) for generation in begun]

    assert runner.run(first_tokens()) == [1, 0, 2]


def test_a_cancelled_request_frees_its_slot(runner: asyncio.Runner, folder: Path) -> None:
    backend = LocalT3Backend(PublishedNet(open_published(folder), CPU), DecoderLimits(1))

    async def scenario() -> list[int]:
        first = backend.start(T3Request((5,), published_voice(7), Sampling(max_speech_tokens=1000)))
        await first.next_speech_tokens()
        waiting = asyncio.create_task(
            speech_tokens_of(backend, T3Request((6,), published_voice(7), Sampling(max_speech_tokens=3)))
        )
        await first.cancel()
        speech_tokens = await waiting
        await backend.close()
        return speech_tokens

    assert len(runner.run(scenario())) >= 4


def test_voices_go_to_the_weights_that_made_them(runner: asyncio.Runner, engine: Engine, voice: Voice) -> None:
    assert voice.t3_prefix is not None
    same = Voice.from_bytes(voice.to_bytes())
    assert same.key == voice.key
    np.testing.assert_array_equal(same.t3_prefix, voice.t3_prefix)

    async def speak(on: Engine, with_voice: Voice) -> None:
        stream = await on.open(with_voice, Sampling(max_speech_tokens=5))
        try:
            async for _ in stream.speak(Segment(0, TEXT)):
                pass
        finally:
            await stream.close()

    with pytest.raises(InvalidInput, match="made with this model"):
        runner.run(speak(engine, make_voice()))
    tiny = engines.load(EngineConfig(model="random:tiny", device="cpu", max_streams=1, strict_reference=True))
    with pytest.raises(InvalidInput, match="published ONNX graphs"):
        runner.run(speak(tiny, voice))
    runner.run(tiny.close())


@pytest.mark.parametrize("repeatable", [True, False])
def test_an_engine_speaks_segment_by_segment(
    runner: asyncio.Runner, engine: Engine, voice: Voice, repeatable: bool
) -> None:
    async def speak() -> tuple[list[AudioChunk], list[SegmentDone]]:
        sampling = Sampling(seed=1, max_speech_tokens=40, repeatable=repeatable)
        stream, chunks, done = await engine.open(voice, sampling), [], []
        for index in range(2):
            async for event in stream.speak(Segment(index, TEXT)):
                if isinstance(event, AudioChunk):
                    chunks.append(event)
                elif isinstance(event, SegmentDone):
                    done.append(event)
        await stream.close()
        return chunks, done

    chunks, done = runner.run(speak())
    assert "whole segment at a time" in engine.info.notice
    assert len(chunks) == len(done) == 2
    assert (
        [len(c.samples) for c in chunks]
        == [d.stats.samples for d in done]
        == [960 * d.stats.speech_tokens for d in done]
    )
    assert chunks[1].first_sample == len(chunks[0].samples)


@pytest.mark.parametrize(
    "choice", [{"decode": "cached"}, {"t3": "vllm"}, {"s3gen": "torch"}, {"device": "cuda"}], ids=str
)
def test_choices_that_the_graphs_do_not_support_are_rejected(folder: Path, choice: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="published ONNX graphs"):
        engines.load(EngineConfig(model=str(folder), **choice))  # type: ignore[arg-type]
