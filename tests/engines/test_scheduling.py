"""Many streams on one device of scripted capacity, on virtual time: which underrun, and what others pay for it."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest

from engines.api import AudioChunk, EngineInfo, Limits, Segment, SegmentDone, SegmentStarted
from engines.config import Sampling
from engines.errors import EngineBusy
from engines.model_spec import SAMPLE_RATE_HZ
from engines.pipeline import Pipeline, PipelineStream, Stages
from engines.s3gen.streaming.batcher import WindowBatcher
from engines.s3gen.streaming.decode_times import DecodeTimes
from engines.s3gen.streaming.schedule import SCHEDULES
from tests.engines.fakes import FakeRuntime, FakeT3, SharedT3, SlowExecute, make_voice
from tests.virtual_time import virtual_time

VOICE = make_voice(60)


@dataclass
class Device:
    """What decoding costs: a call, and each window token in it. The default decodes some 20 times faster than 64
    streams listen with large windows, and is too slow for them with the smallest."""

    call_s: float = 0.02
    token_s: float = 2e-5
    max_batch: int = 16
    t3_token_s: float = 0.008

    def engine(self, schedule: str = "balanced") -> tuple[Pipeline, FakeT3, WindowBatcher]:
        t3 = FakeT3(tokens_per_text_token=1, token_s=self.t3_token_s)
        execute = SlowExecute(FakeRuntime(), self.call_s, self.token_s)
        times = DecodeTimes(shared_work=self.call_s / self.token_s)
        batcher = WindowBatcher(FakeRuntime(), max_batch=self.max_batch, execute=execute, times=times)
        info = EngineInfo("fake", "cpu", "fake", "fake", Limits(10_000, 1000, 500))
        stages = Stages(lambda text: tuple(range(len(text))), t3, batcher, SCHEDULES[schedule])
        return Pipeline(info, stages, NoBuilder(), None), t3, batcher


class NoBuilder:
    def build(self, audio: bytes, name: str):
        raise NotImplementedError


@dataclass
class Outcome:
    ttfa_s: float
    underruns: int
    underrun_s: float
    samples: int


async def listen(engine: Pipeline, start_s: float, tokens: int = 300, *, repeatable: bool = False) -> Outcome:
    await asyncio.sleep(start_s)
    stream = await engine.open(VOICE, Sampling(seed=int(start_s * 1000), repeatable=repeatable))
    try:
        async for event in stream.speak(Segment(0, "x" * tokens)):
            if isinstance(event, SegmentDone):
                s = event.stats
                return Outcome(s.ttfa_s, s.underruns, s.underrun_s, s.samples)
    finally:
        await stream.close()
    raise AssertionError("a segment without an end")


def poisson(count: int, mean_gap_s: float, seed: int = 0) -> list[float]:
    return np.cumsum(np.random.default_rng(seed).exponential(mean_gap_s, count)).tolist()


@pytest.mark.parametrize("schedule", list(SCHEDULES))
@pytest.mark.parametrize("repeatable", [False, True])
def test_64_streams_never_run_dry_where_capacity_suffices(schedule: str, repeatable: bool) -> None:
    async def run() -> list[Outcome]:
        engine, *_ = Device().engine(schedule)
        return await asyncio.gather(*(listen(engine, s, repeatable=repeatable) for s in poisson(64, 0.15)))

    heard = virtual_time(run())
    assert sum(h.underruns for h in heard) == 0
    assert max(h.ttfa_s for h in heard) < 1.0
    assert {h.samples for h in heard} == {303 * 960}


def test_a_burst_of_64_costs_time_to_first_audio_but_no_gap() -> None:
    async def run() -> list[Outcome]:
        engine, *_ = Device().engine()
        return await asyncio.gather(*(listen(engine, 0.001 * i) for i in range(64)))

    heard = virtual_time(run())
    assert sum(h.underruns for h in heard) == 0
    assert max(h.ttfa_s for h in heard) < 0.6


def test_a_device_that_cannot_carry_all_degrades_them_alike() -> None:
    async def run() -> list[Outcome]:
        engine, *_ = Device(call_s=0.3, token_s=2e-3, max_batch=4).engine()
        return await asyncio.gather(*(listen(engine, 0.0) for _ in range(8)))

    heard = virtual_time(run())
    assert sum(h.underruns for h in heard) > 0
    waited_s = [h.ttfa_s + h.underrun_s for h in heard]
    assert max(waited_s) < 2.5 * min(waited_s), "one stream pays for the others"
    # At the smallest hop the device needs about 2 s for a second of everybody's audio; larger hops under load bring
    # that down, so that no stream waits half as long as the audio lasts.
    assert max(waited_s) < 6.0


def test_adaptive_hops_carry_more_than_the_fixed_ladder_under_load() -> None:
    async def run(repeatable: bool) -> float:
        engine, *_ = Device(call_s=0.2, token_s=1e-3, max_batch=4).engine()
        heard = await asyncio.gather(*(listen(engine, 0.0, repeatable=repeatable) for _ in range(12)))
        return sum(h.ttfa_s + h.underrun_s for h in heard)

    assert virtual_time(run(False)) < 0.5 * virtual_time(run(True))


def test_a_crowd_hears_its_first_sound_later_and_then_no_gap() -> None:
    async def run(streams: int) -> tuple[float, int]:
        engine, *_ = Device(call_s=0.06, token_s=2e-4, max_batch=8).engine()
        heard = await asyncio.gather(*(listen(engine, 0.05 * i, 250) for i in range(streams)))
        return max(h.ttfa_s for h in heard), sum(h.underruns for h in heard)

    (alone_s, _), (crowd_s, underruns) = virtual_time(run(1)), virtual_time(run(16))
    assert underruns == 0
    assert alone_s < 0.3 < crowd_s < 3.0


def test_a_stream_whose_t3_stalls_delays_no_other() -> None:
    async def run() -> list[Outcome]:
        device = Device()
        engine, t3, _ = device.engine()
        others = [asyncio.create_task(listen(engine, s)) for s in poisson(16, 0.2)]
        t3.token_s = 0.5  # requests started from here on
        stalled = asyncio.create_task(listen(engine, 0.0, tokens=20))
        await asyncio.sleep(0)
        t3.token_s = device.t3_token_s
        heard = await asyncio.gather(*others)
        await stalled
        return heard

    assert sum(h.underruns for h in virtual_time(run())) == 0


def test_cancelled_streams_leave_room_and_disturb_no_other() -> None:
    async def run() -> tuple[list[Outcome], int, int]:
        engine, t3, batcher = Device().engine()
        tasks = [asyncio.create_task(listen(engine, s)) for s in poisson(64, 0.1)]
        for i, task in enumerate(tasks):
            if i % 3 == 0:
                asyncio.get_running_loop().call_later(0.5 + 0.11 * i, task.cancel)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        heard = [outcome for outcome in outcomes if isinstance(outcome, Outcome)]
        assert len(t3.running) == engine.open_streams == batcher.waiting_windows == 0
        return heard, len(outcomes), sum(isinstance(o, asyncio.CancelledError) for o in outcomes)

    heard, total, cancelled = virtual_time(run())
    assert cancelled > 10
    assert len(heard) == total - cancelled
    assert sum(h.underruns for h in heard) == 0


def test_an_overloaded_device_refuses_new_streams_and_welcomes_them_later() -> None:
    async def run() -> None:
        engine, *_ = Device(call_s=1.5, token_s=2e-3, max_batch=2).engine()
        running = [asyncio.create_task(listen(engine, 0.0)) for _ in range(6)]
        await asyncio.sleep(8.0)
        with pytest.raises(EngineBusy, match="run dry"):
            await engine.open(VOICE, Sampling())
        await asyncio.gather(*running)
        await (await engine.open(VOICE, Sampling())).close()

    virtual_time(run())


def test_memory_stays_flat_however_long_the_utterance() -> None:
    """Ten minutes in one segment: what is held after the last minute is what was held after the first but for the
    tokens themselves."""

    async def run() -> list[int]:
        info = EngineInfo("fake", "cpu", "fake", "fake", Limits(100_000, 20_000, 4))
        batcher = WindowBatcher(FakeRuntime(), max_batch=1)
        stages = Stages(lambda text: tuple(range(len(text))), FakeT3(1, 0.0), batcher, SCHEDULES["balanced"])
        pipeline = Pipeline(info, stages, NoBuilder(), None)
        stream = await pipeline.open(VOICE, Sampling())
        held, spoken = [], 0
        async for event in stream.speak(Segment(0, "x" * 15_000)):
            if isinstance(event, AudioChunk):
                spoken += len(event.samples)
                if spoken >= (len(held) + 1) * 60 * SAMPLE_RATE_HZ:
                    del event
                    gc.collect()
                    held.append(tracemalloc.get_traced_memory()[0])
        await pipeline.close()
        return held

    tracemalloc.start()
    try:
        held = asyncio.run(run())
    finally:
        tracemalloc.stop()
    assert len(held) == 10
    assert held[-1] - held[0] < 1_000_000, "a minute of audio alone is 5.8 MB"


def test_ten_minutes_cost_per_second_what_ten_seconds_do() -> None:
    async def cost(tokens: int) -> tuple[float, int]:
        execute = SlowExecute(FakeRuntime(), 0.0, 1e-3)
        batcher = WindowBatcher(FakeRuntime(), max_batch=1, execute=execute)
        info = EngineInfo("fake", "cpu", "fake", "fake", Limits(100_000, 20_000, 4))
        stages = Stages(lambda text: tuple(range(len(text))), FakeT3(1, 1e-4), batcher, SCHEDULES["balanced"])
        stream = await Pipeline(info, stages, NoBuilder(), None).open(VOICE, Sampling())
        async for event in stream.speak(Segment(0, "x" * tokens)):
            if isinstance(event, AudioChunk):
                assert len(event.samples) <= 107 * 960
        work = sum(request.tokens for batch in execute.batches for request in batch)
        return work / tokens, max(request.tokens for batch in execute.batches for request in batch)

    (short, _), (long, widest) = virtual_time(cost(250)), virtual_time(cost(15_000))
    assert long < 1.05 * short
    assert widest <= 60 + SCHEDULES["balanced"].max_window_tokens


def test_a_prefetched_segment_does_not_delay_a_stream_without_audio() -> None:
    """Stream A has spoken its first segment and T3 works ahead on the second when stream B opens."""

    async def run(*, with_a: bool) -> float:
        engine, t3 = shared_engine()
        stream = await engine.open(VOICE, Sampling(seed=1))
        if with_a:
            segments = [Segment(0, "x" * 60), Segment(1, "y" * 400)]
            speaking = asyncio.create_task(speak_all(stream, segments, between_s=1.0))
            await asyncio.sleep(1.4)  # 63 tokens take 1.26 s
            assert [request.made_ahead for request in t3.started] == [False, True]
        heard = await listen(engine, 0.0, tokens=40)
        if with_a:
            await speaking
        await stream.close()
        return heard.ttfa_s

    step_s = 0.02
    assert virtual_time(run(with_a=True)) < virtual_time(run(with_a=False)) + 1.5 * step_s, (
        "it waits for one step at most"
    )


def test_a_prefetched_segment_is_promoted_when_it_becomes_current() -> None:
    """Stream B keeps T3 busy for 8 s; stream A's second segment gets its share as soon as it is spoken."""

    async def run() -> tuple[list[Outcome], list[bool], int]:
        engine, t3 = shared_engine()
        stream = await engine.open(VOICE, Sampling(seed=1))
        crowd = asyncio.create_task(listen(engine, 0.1, tokens=400))
        segments = [Segment(0, "x" * 40), Segment(1, "y" * 100)]
        speaking = asyncio.create_task(speak_all(stream, segments, between_s=1.0))
        await asyncio.sleep(2.5)  # T3 has made the first segment's 43 tokens in half of its steps
        (prefetched,) = (g for g in t3.running if len(g.speech_tokens) == 103)
        made = prefetched.made
        heard = await speaking
        assert not crowd.done(), "T3 was busy all the time"
        await crowd
        await stream.close()
        return heard, [request.made_ahead for request in t3.started], made

    (_, second), made_ahead, prefetched_tokens = virtual_time(run())
    assert made_ahead == [False, False, True]
    assert prefetched_tokens == 0, "T3 had current segments to work on"
    assert second.ttfa_s < 0.7, "half of T3's steps give the first 14 tokens in 0.56 s"


def shared_engine() -> tuple[Pipeline, SharedT3]:
    t3, execute = SharedT3(), SlowExecute(FakeRuntime(), 0.02)
    batcher = WindowBatcher(FakeRuntime(), max_batch=8, execute=execute)
    info = EngineInfo("fake", "cpu", "fake", "fake", Limits(10_000, 1000, 8))
    stages = Stages(lambda text: tuple(range(len(text))), t3, batcher, SCHEDULES["balanced"])
    return Pipeline(info, stages, NoBuilder(), None), t3


async def speak_all(stream: PipelineStream, segments: list[Segment], between_s: float) -> list[Outcome]:
    """Speak the segments with a pause between, each prefetched while the one before it is spoken."""
    heard = []
    for index, segment in enumerate(segments):
        await asyncio.sleep(between_s if index else 0.0)
        async for event in stream.speak(segment):
            if isinstance(event, SegmentStarted) and segment is not segments[-1]:
                stream.prepare(segments[index + 1])
            if isinstance(event, SegmentDone):
                s = event.stats
                heard.append(Outcome(s.ttfa_s, s.underruns, s.underrun_s, s.samples))
    return heard
