"""The local backend as the pipeline uses it: asyncio tasks on one side, the step thread on the other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest
import torch

from engines.errors import EngineFailure, InvalidInput
from engines.model_spec import SILENCE_TAIL_TOKENS
from engines.t3.backend import T3Request
from engines.t3.decoder import DecoderLimits, T3Decoder
from engines.t3.generation import Generation
from engines.t3.kv_cache import KvSlot
from engines.t3.local_backend import LocalT3Backend
from engines.t3.net import Span
from engines.t3.step_loop import StepLoop
from tests.engines.fakes import CallObserver
from tests.engines.t3.setting import WrappedNet, limits, net, request, run

LONG = {"temperature": 0.0, "max_speech_tokens": 1000}
SHORT = {"temperature": 0.0, "max_speech_tokens": 20}


class GatedNet(WrappedNet):
    """A net whose forward passes wait for permits, so that a test decides how far the step thread gets."""

    def __init__(self) -> None:
        super().__init__(net())
        self.permits = threading.Semaphore(0)
        self.arrived = threading.Semaphore(0)
        self.passes = 0
        self.fails = False

    def forward(self, embeddings: torch.Tensor, spans: Sequence[Span[KvSlot]]) -> torch.Tensor:
        self.arrived.release()
        assert self.permits.acquire(timeout=30)
        self.passes += 1
        if self.fails:
            raise RuntimeError("broken")
        return super().forward(embeddings, spans)


class Stage:
    """A decoder on a gated net, with its thread."""

    def __init__(self, max_streams: int = 2) -> None:
        self.net, self.observer = GatedNet(), CallObserver()
        self.decoder = T3Decoder(self.net, limits(max_streams=max_streams, prefill_chunk_positions=1000))
        self.steps = StepLoop(self.decoder, self.observer)

    def start(self, request: T3Request) -> Generation:
        return Generation.start(self.steps, request)

    async def reached(self) -> None:
        """Wait until the step thread waits for a permit."""
        assert await asyncio.to_thread(self.net.arrived.acquire, timeout=30)

    def open(self) -> None:
        self.net.permits.release(100_000)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    yield stage
    stage.open()
    await asyncio.to_thread(stage.steps.close)


@pytest.fixture
async def backend() -> AsyncIterator[LocalT3Backend]:
    backend = LocalT3Backend(net(), DecoderLimits(2))
    yield backend
    await backend.close()


async def all_tokens(generation: Generation) -> list[int]:
    speech_tokens: list[int] = []
    while more := await generation.next_speech_tokens():
        speech_tokens += more
    return speech_tokens


def expected_tokens(request: T3Request) -> list[int]:
    (raw,) = run(T3Decoder(net(), limits()), request)
    return [token for token in raw if token < 6561] + [4299] * 3


async def test_requests_get_their_own_tokens_beside_others(backend: LocalT3Backend) -> None:
    requests = [request(n, max_speech_tokens=50) for n in range(5)]
    generations = [backend.start(each) for each in requests]
    results = await asyncio.gather(*(all_tokens(generation) for generation in generations))
    assert results == [expected_tokens(each) for each in requests]
    assert await generations[0].next_speech_tokens() == []
    limited = [len(run(T3Decoder(net(), limits()), each)[0]) == 51 for each in requests]
    assert [generation.hit_token_limit for generation in generations] == limited
    assert any(limited)


async def test_speech_that_runs_away_is_ended(backend: LocalT3Backend) -> None:
    long = request(1, max_speech_tokens=50)
    bounded = backend.start(replace(long, runaway_tokens=5))
    assert await all_tokens(bounded) == expected_tokens(long)[:6] + [4299] * 3
    assert bounded.hit_runaway_limit
    assert not bounded.hit_token_limit
    await bounded.cancel()
    roomy = backend.start(replace(long, runaway_tokens=1000))
    assert await all_tokens(roomy) == expected_tokens(long)
    assert not roomy.hit_runaway_limit


async def test_tokens_arrive_while_others_are_still_to_be_drawn(stage: Stage) -> None:
    generation = stage.start(request(1, **LONG))
    stage.net.permits.release(1)
    first = await generation.next_speech_tokens()
    assert first == expected_tokens(request(1, **SHORT))[:1]
    stage.net.permits.release(2)
    assert len(await generation.next_speech_tokens()) in (1, 2)


async def test_a_request_pauses_at_its_target_until_that_is_raised(backend: LocalT3Backend) -> None:
    generation = backend.start(request(1, **SHORT))
    generation.set_target(8)
    speech_tokens: list[int] = []
    while len(speech_tokens) < 8:
        speech_tokens += await generation.next_speech_tokens()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(generation.next_speech_tokens(), 0.1)
    assert len(speech_tokens) == 8
    generation.set_target(1000)
    while more := await generation.next_speech_tokens():
        speech_tokens += more
    assert speech_tokens[:-SILENCE_TAIL_TOKENS] == run(T3Decoder(net(), limits()), request(1, **SHORT))[0]
    generation.set_target(2000)  # nothing special after the end


async def test_cancel_returns_within_one_step_and_frees_the_slot(stage: Stage) -> None:
    generation = stage.start(request(1, **LONG))
    for _ in range(5):
        await stage.reached()
        stage.net.permits.release(1)
    await stage.reached()
    cancelling = asyncio.create_task(generation.cancel())
    await asyncio.sleep(0)
    assert not cancelling.done(), "the step under way has to end first"
    stage.net.permits.release(1)
    await cancelling
    assert stage.decoder.idle
    assert stage.decoder.free_slots == 2
    assert stage.net.passes == 6
    assert await generation.next_speech_tokens() == []
    await generation.cancel()


async def test_cancel_leaves_the_others_as_they_were(stage: Stage) -> None:
    stays, goes, waits = (stage.start(request(n, **SHORT)) for n in (1, 2, 3))
    for _ in range(6):
        await stage.reached()
        stage.net.permits.release(1)
    stage.open()
    await goes.cancel()
    assert await all_tokens(stays) == expected_tokens(request(1, **SHORT))
    assert await all_tokens(waits) == expected_tokens(request(3, **SHORT))


async def test_waiting_and_ended_requests_can_be_cancelled(stage: Stage) -> None:
    running, other, waiting = (stage.start(request(n, **SHORT)) for n in (1, 2, 3))
    stage.open()
    await waiting.cancel()
    assert await waiting.next_speech_tokens() == []
    assert await all_tokens(running) == expected_tokens(request(1, **SHORT))
    await running.cancel()
    await asyncio.gather(other.cancel(), other.cancel())
    assert stage.decoder.free_slots == 2


async def test_promoting_reorders_what_waits_for_a_slot(stage: Stage) -> None:
    running = [stage.start(request(n, **LONG)) for n in (1, 2)]
    ahead, promoted = (stage.start(replace(request(n, **SHORT), made_ahead=True)) for n in (3, 4))
    begun: list[Generation] = []

    async def finish(generation: Generation) -> list[int]:
        first = await generation.next_speech_tokens()
        begun.append(generation)
        return first + await all_tokens(generation)

    finishing = asyncio.gather(finish(ahead), finish(promoted))
    await stage.reached()
    promoted.promote()
    promoted.promote()
    stage.open()
    await running[0].cancel()
    assert await finishing == [expected_tokens(request(n, **SHORT)) for n in (3, 4)]
    assert begun == [promoted, ahead]
    promoted.promote()  # nothing after the end
    await running[1].cancel()
    running[1].promote()  # nor after cancelling


async def test_promoting_after_close_is_without_effect(stage: Stage) -> None:
    generation = stage.start(replace(request(1, **LONG), made_ahead=True))
    stage.open()
    await asyncio.to_thread(stage.steps.close)
    generation.promote()


async def test_cancel_wakes_a_waiting_reader(stage: Stage) -> None:
    generation = stage.start(request(1, **LONG))
    reader = asyncio.create_task(generation.next_speech_tokens())
    await stage.reached()
    cancelling = asyncio.create_task(generation.cancel())
    assert await reader == []
    stage.open()
    await cancelling


async def test_a_cancelled_reader_loses_no_tokens(stage: Stage) -> None:
    generation = stage.start(request(1, **SHORT))
    reader = asyncio.create_task(generation.next_speech_tokens())
    await stage.reached()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    stage.open()
    assert await all_tokens(generation) == expected_tokens(request(1, **SHORT))


async def test_a_failure_reaches_its_request_and_the_loop_goes_on(stage: Stage) -> None:
    failing = stage.start(request(1, **SHORT))
    await stage.reached()
    stage.net.fails = True
    stage.net.permits.release(1)
    with pytest.raises(EngineFailure, match="broken"):
        await failing.next_speech_tokens()
    await failing.cancel()
    stage.net.fails = False
    stage.open()
    assert await all_tokens(stage.start(request(2, **SHORT))) == expected_tokens(request(2, **SHORT))


async def test_closing_fails_running_and_waiting_requests_and_rejects_new_ones() -> None:
    before = threading.enumerate()
    backend = LocalT3Backend(net(), DecoderLimits(1))
    running, waiting = backend.start(request(1, **LONG)), backend.start(request(2, **LONG))
    await running.next_speech_tokens()
    await backend.close()
    await backend.close()
    for generation in (running, waiting):
        with pytest.raises(EngineFailure, match="closed"):
            await all_tokens(generation)
        await generation.cancel()
    with pytest.raises(EngineFailure, match="closed"):
        backend.start(request(3))
    started = [thread for thread in threading.enumerate() if thread not in before]
    assert not [thread for thread in started if thread.name == "t3-steps" and thread.is_alive()]


def test_a_request_whose_event_loop_is_gone_gives_its_slot_back() -> None:
    stage = Stage(max_streams=1)
    stage.open()

    async def start_and_vanish() -> None:
        await stage.start(request(1, **LONG)).next_speech_tokens()

    async def come_after() -> list[int]:
        return await asyncio.wait_for(all_tokens(stage.start(request(2, **SHORT))), 30)

    asyncio.run(start_and_vanish())
    assert asyncio.run(come_after()) == expected_tokens(request(2, **SHORT))
    stage.steps.close()


async def test_a_request_that_cannot_fit_is_rejected_before_it_is_queued(backend: LocalT3Backend) -> None:
    with pytest.raises(InvalidInput) as raised:
        backend.start(request(1, text=1500))
    assert raised.value.reason == "TEXT_TOO_LONG"
    with pytest.raises(InvalidInput):
        backend.start(request(1, text=0))


async def test_a_step_that_does_not_return_is_seen_by_the_observer(stage: Stage) -> None:
    generation = stage.start(request(1, **SHORT))
    await stage.reached()
    assert stage.observer.running["t3"] == 1
    stage.open()
    await all_tokens(generation)
    await generation.cancel()
    assert stage.observer.returned["t3"] >= 20
