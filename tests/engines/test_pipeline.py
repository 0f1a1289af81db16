"""The stages joined for one stream, on scripted stages and virtual time."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import numpy as np
import pytest

from engines import pipeline
from engines.api import AudioChunk, EngineInfo, Event, Limits, Segment, SegmentDone, SegmentStarted, SegmentStats
from engines.config import Sampling
from engines.errors import EngineBusy, EngineFailure, InvalidInput, TimeLimitExceeded
from engines.model_spec import SAMPLES_PER_TOKEN
from engines.pipeline import Pipeline, Stages
from engines.s3gen.streaming.batcher import WindowBatcher
from engines.s3gen.streaming.schedule import SCHEDULES
from engines.time_scale import TimeScale, scaled_samples
from engines.voice import Voice
from tests.engines.fakes import FakeRuntime, FakeT3, SlowExecute, make_voice
from tests.virtual_time import virtual_time

TEXT = "x" * 60


class NoBuilder:
    def build(self, audio: bytes, name: str) -> Voice:
        return make_voice(name=name)


def encode(text: str) -> tuple[int, ...]:
    if not text.strip():
        raise InvalidInput("text", "text has nothing to say.", "TEXT_EMPTY")
    return tuple(range(len(text)))


class Bench:
    """A pipeline and its scripted stages."""

    def __init__(self, *, batch_s: float = 0.05, max_streams: int = 4, **t3: float) -> None:
        self.t3 = FakeT3(**t3)  # type: ignore[arg-type]
        self.runtime = FakeRuntime()
        self.execute = SlowExecute(self.runtime, batch_s)
        self.batcher = WindowBatcher(self.runtime, max_batch=4, execute=self.execute)
        info = EngineInfo("fake", "cpu", "fake", "fake", Limits(1000, 1000, max_streams))
        stages = Stages(encode, self.t3, self.batcher, SCHEDULES["balanced"])
        self.engine = Pipeline(info, stages, NoBuilder(), make_voice())

    @property
    def at_rest(self) -> bool:
        return not self.t3.running and not self.batcher.waiting_windows and not self.engine.open_streams


async def speak(bench: Bench, text: str = TEXT, seed: int = 1) -> list[Event]:
    stream = await bench.engine.open(make_voice(), Sampling(seed=seed))
    events = [event async for event in stream.speak(Segment(0, text))]
    await stream.close()
    return events


def audio(events: list[Event]) -> np.ndarray:
    return np.concatenate([event.samples for event in events if isinstance(event, AudioChunk)])


def test_a_segment_is_started_spoken_without_a_gap_and_done() -> None:
    async def run() -> None:
        bench = Bench()
        events = await speak(bench)
        assert isinstance(events[0], SegmentStarted)
        done = events[-1]
        assert isinstance(done, SegmentDone)
        expected_tokens = 2 * len(TEXT) + 3
        assert done.stats.speech_tokens == expected_tokens
        assert done.stats.samples == len(audio(events)) == expected_tokens * SAMPLES_PER_TOKEN
        position = 0
        for chunk in events[1:-1]:
            assert isinstance(chunk, AudioChunk)
            assert chunk.first_sample == position
            position += len(chunk.samples)
        assert bench.at_rest

    virtual_time(run())


def test_every_chunk_says_which_window_made_it_and_how_far_the_speech_tokens_are() -> None:
    async def run() -> None:
        events = await speak(Bench(token_s=0.02))
        figures = [event.window for event in events if isinstance(event, AudioChunk)]
        assert [one.index for one in figures if one] == list(range(len(figures)))
        made = 0
        for one in figures:
            assert one is not None
            assert one.made_speech_tokens >= made + one.new_speech_tokens > made
            assert one.decode_s == pytest.approx(0.05)
            made += one.new_speech_tokens
        assert figures[-1] is not None
        assert figures[-1].made_speech_tokens == made == 2 * len(TEXT) + 3

    virtual_time(run())


def test_sound_starts_long_before_the_speech_tokens_are_all_there() -> None:
    async def run() -> None:
        bench = Bench(token_s=0.02)
        done = (await speak(bench))[-1]
        assert isinstance(done, SegmentDone)
        assert done.stats.ttfa_s == pytest.approx(14 * 0.02 + 0.05)
        assert done.stats.ttfa_s < 0.2 * done.stats.t3_s
        assert done.stats.underruns == 0

    virtual_time(run())


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not() -> None:
    async def run() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return (
            audio(await speak(Bench(), seed=1)),
            audio(await speak(Bench(token_s=0.5), seed=1)),
            audio(await speak(Bench(), seed=2)),
        )

    first, slower, other = virtual_time(run())
    assert np.array_equal(first, slower)
    assert not np.array_equal(first, other)


def test_concurrent_streams_equal_the_same_streams_one_after_the_other() -> None:
    async def run() -> None:
        apart = [audio(await speak(Bench(), seed=s)) for s in range(3)]
        bench = Bench()
        together = await asyncio.gather(*(speak(bench, seed=s) for s in range(3)))
        for alone, event_list in zip(apart, together, strict=True):
            assert np.allclose(alone, audio(event_list), atol=1e-3)
        assert max(len(batch) for batch in bench.execute.batches) > 1

    virtual_time(run())


def test_leaving_early_frees_everything() -> None:
    async def run() -> None:
        bench = Bench()
        stream = await bench.engine.open(make_voice(), Sampling(seed=1))
        stream.prepare(Segment(1, TEXT))
        speaking = stream.speak(Segment(0, TEXT))
        async for event in speaking:
            if isinstance(event, AudioChunk):
                break
        await speaking.aclose()
        assert not bench.t3.running
        await stream.close()
        assert bench.at_rest

    virtual_time(run())


def test_cancelling_the_task_that_listens_frees_everything() -> None:
    async def run() -> None:
        bench = Bench()
        task = asyncio.create_task(speak(bench))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await bench.engine.close()
        assert bench.at_rest

    virtual_time(run())


def test_a_prepared_segment_starts_t3_when_the_one_before_has_ended() -> None:
    async def run() -> None:
        bench = Bench()
        stream = await bench.engine.open(make_voice(), Sampling(seed=1))
        segments = [Segment(0, TEXT), Segment(1, TEXT)]
        started_while_speaking = 0
        async for _ in stream.speak(segments[0]):
            stream.prepare(segments[1])
            started_while_speaking = len(bench.t3.started)
        assert started_while_speaking == 2
        done = [event async for event in stream.speak(segments[1])][-1]
        assert isinstance(done, SegmentDone)
        assert len(bench.t3.started) == 2
        # 14 tokens and a window; five of the tokens came while the first segment's last window was decoded
        assert done.stats.ttfa_s == pytest.approx(9 * 0.01 + 0.05)
        await stream.close()
        assert bench.at_rest

    virtual_time(run())


def test_segments_of_a_stream_continue_one_timeline() -> None:
    async def run() -> None:
        bench = Bench()
        stream = await bench.engine.open(make_voice(), Sampling(seed=1))
        chunks = [
            event
            for index in range(3)
            async for event in stream.speak(Segment(index, TEXT))
            if isinstance(event, AudioChunk)
        ]
        ends = [chunk.first_sample + len(chunk.samples) for chunk in chunks]
        assert [chunk.first_sample for chunk in chunks] == [0, *ends[:-1]]

    virtual_time(run())


def test_a_failing_t3_ends_its_own_stream_with_a_typed_error() -> None:
    async def run() -> None:
        bench = Bench(fail_after=30)
        with pytest.raises(EngineFailure, match="scripted"):
            await speak(bench)
        assert not bench.t3.running
        await bench.engine.close()

    virtual_time(run())


def test_text_without_anything_to_say_is_refused_before_any_event() -> None:
    async def run() -> None:
        bench = Bench()
        with pytest.raises(InvalidInput) as caught:
            await speak(bench, text="   ")
        assert caught.value.reason == "TEXT_EMPTY"
        assert not bench.t3.started

    virtual_time(run())


def test_streams_beyond_the_limit_are_refused_at_once_and_welcome_later() -> None:
    async def run() -> None:
        bench = Bench(max_streams=2)
        streams = [await bench.engine.open(make_voice(), Sampling()) for _ in range(2)]
        with pytest.raises(EngineBusy):
            await bench.engine.open(make_voice(), Sampling())
        await streams[0].close()
        await (await bench.engine.open(make_voice(), Sampling())).close()

    virtual_time(run())


def test_warm_up_speaks_to_the_end_and_leaves_nothing() -> None:
    async def run() -> None:
        bench = Bench()
        await bench.engine.warm_up()
        assert bench.at_rest
        assert bench.execute.batches

    virtual_time(run())


async def test_a_voice_that_takes_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class HangingBuilder:
        def build(self, audio: bytes, name: str, *, normalize_loudness: bool = True) -> Voice:
            go_on.wait()
            return make_voice(name=name)

    go_on = threading.Event()
    monkeypatch.setattr(pipeline, "_VOICE_TIME_LIMIT_S", 0.02)
    bench = Bench()
    engine = Pipeline(bench.engine.info, bench.engine.stages, HangingBuilder(), make_voice())
    with pytest.raises(TimeLimitExceeded) as raised:
        await engine.make_voice(b"", name="Anna")
    assert (raised.value.reason, raised.value.retryable) == ("VOICE_TIMEOUT", True)
    go_on.set()


def test_speech_that_runs_away_from_its_text_ends_in_a_short_fade() -> None:
    async def run() -> tuple[list[Event], list[Event]]:
        bounded, free = Bench(), Bench()
        bounded.engine.stages = replace(bounded.engine.stages, runaway_tokens=lambda _: 30)
        events: tuple[list[Event], list[Event]] = ([], [])
        for bench, received in zip((bounded, free), events, strict=True):
            stream = await bench.engine.open(make_voice(), Sampling(seed=1))
            received += [event async for event in stream.speak(Segment(0, "x" * 50))]
            await stream.close()
            assert bench.at_rest
        return events

    cut, whole = virtual_time(run())
    done = next(event for event in cut if isinstance(event, SegmentDone)).stats
    assert (done.hit_runaway_limit, done.hit_token_limit, done.speech_tokens) == (True, False, 33)
    last = [event for event in cut if isinstance(event, AudioChunk)][-1].samples
    assert abs(last[-1]) < 1e-6
    assert not next(event for event in whole if isinstance(event, SegmentDone)).stats.hit_runaway_limit
    assert done.samples == 33 * SAMPLES_PER_TOKEN


@pytest.mark.parametrize("speed", [0.5, 1.3, 2.0])
def test_speed_changes_the_samples_and_their_offsets_exactly(speed: float) -> None:
    async def run() -> None:
        bench = Bench(token_s=0.001)
        stream = await bench.engine.open(make_voice(), Sampling(seed=1))
        position = 0
        for index in range(2):
            chunks, done = [], None
            async for event in stream.speak(Segment(index, TEXT, speed)):
                if isinstance(event, AudioChunk):
                    assert event.first_sample == position
                    position += len(event.samples)
                    chunks.append(event.samples)
                done = event
            assert isinstance(done, SegmentDone)
            speech = (2 * len(TEXT) + 3) * SAMPLES_PER_TOKEN
            assert done.stats.samples == sum(map(len, chunks)) == scaled_samples(speech, speed)
            plain = audio(
                [e async for e in (await bench.engine.open(make_voice(), Sampling(seed=1))).speak(Segment(index, TEXT))]
            )
            assert np.array_equal(np.concatenate(chunks), TimeScale(speed).feed(plain, last=True))
        await bench.engine.close()

    virtual_time(run())


def test_a_listener_at_twice_the_speed_gets_windows_that_last() -> None:
    async def run(speed: float) -> SegmentStats:
        bench = Bench(token_s=0.005, batch_s=0.25)
        for _ in range(2):  # the first segment's windows measure the device
            stream = await bench.engine.open(make_voice(), Sampling(seed=1, repeatable=False))
            done = [event async for event in stream.speak(Segment(0, TEXT, speed))][-1]
            await stream.close()
        assert isinstance(done, SegmentDone)
        return done.stats

    at_1, at_2 = virtual_time(run(1.0)), virtual_time(run(2.0))
    assert at_1.underruns == at_2.underruns == 0
    assert at_2.samples == at_1.samples // 2
    assert at_2.ttfa_s > at_1.ttfa_s, "ten tokens last 0.2 s at twice the speed, less than a window takes"


def test_a_new_speed_keeps_the_speech_tokens_of_a_prefetched_segment() -> None:
    async def run() -> int:
        bench = Bench(token_s=0.001)
        stream = await bench.engine.open(make_voice(), Sampling(seed=1))
        async for _ in stream.speak(Segment(0, TEXT)):
            stream.prepare(Segment(1, TEXT))
        started = len(bench.t3.started)
        async for _ in stream.speak(Segment(1, TEXT, 2.0)):
            pass
        await stream.close()
        assert len(bench.t3.started) == started
        return started

    assert virtual_time(run()) == 2


def test_a_language_that_is_slow_to_load_keeps_no_other_waiting() -> None:
    loads: list[str] = []
    fetched = threading.Event()

    def load(language: str) -> None:
        loads.append(language)
        if language == "zh":
            assert fetched.wait(30), "the other language was kept waiting"

    async def run() -> None:
        bench = Bench()
        bench.engine.stages = replace(bench.engine.stages, load_language=load)
        slow = [asyncio.create_task(bench.engine.load_language("zh")) for _ in range(3)]
        await asyncio.sleep(0)
        await bench.engine.load_language("ja")
        fetched.set()
        await asyncio.gather(*slow)
        await bench.engine.load_language("zh")
        assert sorted(loads) == ["ja", "zh"], "each is loaded once"

    asyncio.run(run())
