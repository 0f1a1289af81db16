"""The vLLM backend as the pipeline uses it, on the real engine: tasks, cancelling, failing, closing."""

from __future__ import annotations

import asyncio
import json
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from engines.checkpoints.checkpoint import Checkpoint
from engines.errors import CheckpointError, EngineFailure, InvalidInput
from engines.model_spec import TINY
from engines.t3.backend import T3Backend, T3Generation
from engines.t3.decoder import DecoderLimits
from engines.t3.local_backend import LocalT3Backend
from engines.t3.vllm.backend import VllmT3Backend
from engines.tools.engine_times import t3_backend_call
from engines.tools.torch_profiler import profiled
from tests.engines.t3.setting import checkpoint, net, request, voice
from tests.vllm.setting import drawn, engine, runner


class Health:
    """Records the backend's health reports; may block the engine's thread during a report."""

    def __init__(self) -> None:
        self.reports: list[bool] = []
        self.failed = threading.Event()
        self.recovered = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, healthy: bool) -> None:
        self.reports.append(healthy)
        (self.recovered if healthy else self.failed).set()
        if not healthy:
            self.go_on.wait(60)


def make(work_dir: Path, **options: Any) -> VllmT3Backend:
    usual = {"device": "cpu", "max_streams": 4, "max_positions": 600, "work_dir": work_dir}
    return VllmT3Backend(checkpoint(), **(usual | options))


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vllm")


@pytest.fixture(scope="module")
def health() -> Health:
    return Health()


@pytest.fixture(scope="module")
def backend(work_dir: Path, health: Health) -> Iterator[VllmT3Backend]:
    backend = make(work_dir, on_health=health)
    yield backend
    asyncio.run(backend.close())


@pytest.fixture
async def on_torch() -> AsyncIterator[LocalT3Backend]:
    backend = LocalT3Backend(net(), DecoderLimits(4))
    yield backend
    await backend.close()


async def speech_tokens_of(generation: T3Generation) -> list[int]:
    speech_tokens: list[int] = []
    while new := await generation.next_speech_tokens():
        speech_tokens += new
    return speech_tokens


async def speak(backend: T3Backend, *requests: Any) -> list[list[int]]:
    return await asyncio.gather(*(speech_tokens_of(backend.start(one)) for one in requests))


async def test_every_request_gets_its_own_tokens(backend: VllmT3Backend, on_torch: LocalT3Backend) -> None:
    """Eight different tasks on four slots; the torch backend makes the same tokens one by one."""
    requests = [drawn(seed, text=5 + seed, max_speech_tokens=40 + 5 * seed) for seed in range(8)]
    together = await speak(backend, *requests)
    alone = [(await speak(on_torch, one))[0] for one in requests]
    assert together == alone
    assert len({tuple(speech_tokens) for speech_tokens in together}) == 8


async def test_tokens_come_one_by_one_as_they_are_drawn(backend: VllmT3Backend) -> None:
    generation = backend.start(request(1, temperature=0, max_speech_tokens=100))
    first = await generation.next_speech_tokens()
    assert len(first) < 50, "the first tokens must not wait for the last"
    rest = await speech_tokens_of(generation)
    assert len(first + rest) == 101 + 3
    assert generation.hit_token_limit


async def test_cancelling_frees_the_blocks_before_it_returns(backend: VllmT3Backend) -> None:
    await speak(backend, request(1, max_speech_tokens=2))
    blocks = engine(backend._decoder)
    free = blocks.free_kv_blocks
    generation = backend.start(request(2, temperature=0, max_speech_tokens=400))
    other = backend.start(request(3, temperature=0, max_speech_tokens=60))
    await generation.next_speech_tokens()
    assert blocks.free_kv_blocks < free
    await generation.cancel()
    await generation.cancel()
    assert await generation.next_speech_tokens() == []
    assert len(await speech_tokens_of(other)) == 61 + 3, "others go on"
    await other.cancel()
    assert blocks.free_kv_blocks == free


async def test_a_request_that_cannot_fit_is_rejected_at_once(backend: VllmT3Backend) -> None:
    with pytest.raises(InvalidInput, match="at most 423 text tokens"):
        backend.start(request(1, text=424, max_speech_tokens=100))
    with pytest.raises(InvalidInput, match="at least one text token"):
        backend.start(request(1, text=0))


async def test_an_engine_that_breaks_is_rebuilt_and_speaks_again(backend: VllmT3Backend, health: Health) -> None:
    """Its requests fail with a typed error, late ones at once, and the next engine draws the same tokens."""
    asked = drawn(4, max_speech_tokens=50)
    (expected,) = await speak(backend, asked)
    health.reports.clear()
    health.recovered.clear()
    health.go_on.clear()
    broken = runner(backend._decoder)
    memory = weakref.ref(broken.kv_caches[0])
    generations = [backend.start(request(seed, temperature=0, max_speech_tokens=400)) for seed in (1, 2)]
    for generation in generations:
        await generation.next_speech_tokens()

    def lose_the_device(*_: object) -> None:
        raise RuntimeError("device lost")

    broken.execute_model = lose_the_device
    del broken
    await asyncio.to_thread(health.failed.wait, 60)
    assert not backend.healthy
    with pytest.raises(EngineFailure, match="being rebuilt"):
        await speech_tokens_of(backend.start(asked))
    health.go_on.set()
    for generation in generations:
        with pytest.raises(EngineFailure, match="device lost") as failure:
            await speech_tokens_of(generation)
        assert failure.value.retryable
    await asyncio.to_thread(health.recovered.wait, 60)
    assert health.reports == [False, True]
    assert backend.healthy
    assert await speak(backend, asked) == [expected]
    assert memory() is None, "the broken engine's memory is free"


async def test_closing_fails_running_requests_and_later_ones(work_dir: Path) -> None:
    backend = make(work_dir)
    running = backend.start(request(1, temperature=0, max_speech_tokens=400))
    await running.next_speech_tokens()
    await backend.close()
    with pytest.raises(EngineFailure, match="closed"):
        await speech_tokens_of(running)
    with pytest.raises(EngineFailure, match="closed"):
        backend.start(request(1, max_speech_tokens=50))
    assert not backend.healthy
    await backend.close()


def test_a_setting_that_cannot_be_met_is_named(work_dir: Path) -> None:
    for field, value in {"device": "cuda", "dtype": "float8", "kv_blocks": 3}.items():
        with pytest.raises(InvalidInput, match=value if isinstance(value, str) else "at least"):
            make(work_dir, **{field: value})
    with pytest.raises(InvalidInput, match="CUDA_VISIBLE_DEVICES"):
        make(work_dir, device="cuda:1")


def test_an_engine_that_does_not_start_is_an_error(work_dir: Path) -> None:
    """A step must read at least as many rows as there are sequences."""
    with pytest.raises(EngineFailure, match=r"(?s)vLLM did not start: .*max_num_batched_tokens"):
        make(work_dir, prefill_chunk_positions=2)


def test_vllms_steps_are_ranges_of_a_trace(backend: VllmT3Backend, tmp_path: Path) -> None:
    with t3_backend_call(backend, backend.decoder, voice(1)) as call:
        profiled(call, tmp_path / "trace.json", 3, "first tokens")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    ranges = [event["name"] for event in events if event.get("cat") == "user_annotation"]
    assert ranges.count("T3 step on vllm") >= 2
    assert "first tokens" in ranges


def test_weights_of_another_shape_are_named_before_anything_starts(tmp_path: Path) -> None:
    save_file({"speech_emb.weight": np.zeros((3, 4), dtype=np.float32)}, tmp_path / TINY.t3_file)
    with pytest.raises(CheckpointError, match=r"speech_emb.weight has shape \(3, 4\)"):
        VllmT3Backend(Checkpoint(tmp_path, TINY), device="cpu", max_streams=1, work_dir=tmp_path)


async def test_half_precision_serves_too(work_dir: Path) -> None:
    """The precision of a GPU: other tokens than float32's, but as varied."""
    backend = make(work_dir, dtype="bfloat16")
    speech_tokens = await speak(backend, request(1, of=voice(1), temperature=0, max_speech_tokens=30))
    await backend.close()
    assert len(speech_tokens[0]) == 31 + 3
    assert len(set(speech_tokens[0])) > 15
