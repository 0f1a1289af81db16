"""Languages whose front end is slow: read in a thread of their own, while other streams go on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from engines.api import AudioChunk, Event, Segment, SegmentDone, SegmentStarted
from engines.config import Sampling
from engines.errors import InvalidInput, TimeLimitExceeded
from engines.t3.backend import T3Request
from engines.text.languages.workers import LanguageWorkers
from tests.engines.fakes import FakeGeneration, make_voice
from tests.engines.test_pipeline import Bench, encode

TEXT = "x" * 30
WAIT_S = 60.0  # for what comes at once


class FrontEnd:
    """Reads at once, but where a test holds a text back."""

    def __init__(self) -> None:
        self.reads: list[tuple[str, str, threading.Thread]] = []
        self.held: dict[str, threading.Event] = {}
        self.began: dict[str, threading.Event] = {}

    def hold(self, text: str) -> threading.Event:
        self.began[text] = threading.Event()
        self.held[text] = threading.Event()
        return self.held[text]

    def __call__(self, text: str, language: str = "") -> tuple[int, ...]:
        self.reads.append((language, text, threading.current_thread()))
        if text in self.held:
            self.began[text].set()
            assert self.held[text].wait(WAIT_S), "nothing went on while the front end was reading"
        return encode(text)


def bench_with(front_end: Callable[..., tuple[int, ...]], *slow: str) -> Bench:
    bench = Bench(batch_s=0.0, token_s=0.0)
    bench.batcher.overloaded = lambda now_s: False  # type: ignore[method-assign]  # on a busy machine
    workers = LanguageWorkers(600.0, 600.0)
    bench.engine.stages = replace(
        bench.engine.stages, encode_text=front_end, slow_languages=frozenset(slow), languages=workers
    )
    return bench


async def speak(bench: Bench, *segments: Segment) -> list[Event]:
    """Each segment is announced with every event of the one before."""
    stream = await bench.engine.open(make_voice(), Sampling(seed=1))
    events: list[Event] = []
    try:
        for segment, upcoming in zip(segments, [*segments[1:], None], strict=True):
            async for event in stream.speak(segment):
                events.append(event)
                if upcoming is not None:
                    stream.prepare(upcoming)
    finally:
        await stream.close()
    return events


def audio(events: list[Event]) -> np.ndarray:
    return np.concatenate([event.samples for event in events if isinstance(event, AudioChunk)])


async def begun(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, WAIT_S)


def test_a_front_end_that_takes_long_stops_no_other_stream() -> None:
    async def run() -> None:
        front_end = FrontEnd()
        bench = bench_with(front_end, "he", "ru")
        held = front_end.hold(TEXT)
        waiting = asyncio.create_task(speak(bench, Segment(0, TEXT, language="he")))
        await begun(front_end.began[TEXT])
        for language in ("", "en", "ru"):
            events = await speak(bench, Segment(0, "y" * 30, language=language))
            assert isinstance(events[-1], SegmentDone)
        assert not waiting.done()
        held.set()
        assert isinstance((await waiting)[-1], SegmentDone)
        assert bench.at_rest

    asyncio.run(run())


def test_segments_are_read_in_order_and_sound_as_those_of_a_quick_front_end() -> None:
    texts = ["one" * 9, "two" * 11, "three" * 6]

    async def run() -> None:
        quick, slow = FrontEnd(), FrontEnd()
        segments = [Segment(index, text, language="he") for index, text in enumerate(texts)]
        expected = await speak(bench_with(quick), *segments)
        spoken = await speak(bench_with(slow, "he"), *segments)
        assert [event.segment.index for event in spoken if isinstance(event, SegmentStarted)] == [0, 1, 2]
        assert np.array_equal(audio(spoken), audio(expected))
        assert [text for _, text, _ in slow.reads] == texts, "each is read once"
        threads = {thread for *_, thread in slow.reads}
        assert len(threads) == 1
        assert threading.main_thread() not in threads

    asyncio.run(run())


def test_the_next_segment_is_read_while_the_one_before_is_spoken() -> None:
    async def run() -> None:
        front_end = FrontEnd()
        bench = bench_with(front_end, "he")
        held = front_end.hold("next")
        stream = await bench.engine.open(make_voice(), Sampling(seed=1))
        following = Segment(1, "next", language="he")
        async for event in stream.speak(Segment(0, TEXT, language="he")):
            if isinstance(event, SegmentStarted):
                stream.prepare(following)
                await begun(front_end.began["next"])
        assert [request.made_ahead for request in bench.t3.started] == [False]
        held.set()
        async for event in stream.speak(following):
            assert event is not None
        await stream.close()
        assert [text for _, text, _ in front_end.reads] == [TEXT, "next"]
        assert bench.at_rest

    asyncio.run(run())


def test_t3_begins_a_prefetched_segment_when_its_text_has_been_read() -> None:
    async def run() -> None:
        front_end = FrontEnd()
        bench = bench_with(front_end, "he")
        stream = await bench.engine.open(make_voice(), Sampling(seed=1))
        announced = Segment(0, TEXT, language="he")
        start, started = bench.t3.start, asyncio.Event()

        def noticed(request: T3Request) -> FakeGeneration:
            started.set()
            return start(request)

        bench.t3.start = noticed  # type: ignore[method-assign]
        stream.prepare(announced)
        async with asyncio.timeout(WAIT_S):
            await started.wait()
        assert bench.t3.started[0].made_ahead
        async for _ in stream.speak(announced):
            pass
        assert len(bench.t3.started) == len(front_end.reads) == 1
        await stream.close()

    asyncio.run(run())


def test_a_cancel_while_a_text_is_read_frees_the_stream_and_the_language() -> None:
    async def run() -> None:
        front_end = FrontEnd()
        bench = bench_with(front_end, "he")
        held = front_end.hold(TEXT)
        waiting = asyncio.create_task(speak(bench, Segment(0, TEXT, language="he")))
        await begun(front_end.began[TEXT])
        behind = asyncio.create_task(speak(bench, Segment(0, "dropped", language="he")))
        await asyncio.sleep(0)
        for task in (waiting, behind):
            task.cancel()
        assert [type(end) for end in await asyncio.gather(waiting, behind, return_exceptions=True)] == [
            asyncio.CancelledError
        ] * 2
        assert bench.at_rest, "a cancel does not wait for the front end"
        held.set()
        assert isinstance((await speak(bench, Segment(0, "again", language="he")))[-1], SegmentDone)
        assert [text for _, text, _ in front_end.reads] == [TEXT, "again"], "what was dropped is not read"
        assert len(bench.t3.started) == 1

    asyncio.run(run())


def test_what_a_slow_front_end_refuses_is_raised_by_speak_also_behind_an_announcement() -> None:
    async def run() -> None:
        bench = bench_with(FrontEnd(), "he")
        for segments in (
            [Segment(0, " ", language="he")],
            [Segment(n, t, language="he") for n, t in ((0, TEXT), (1, " "))],
        ):
            with pytest.raises(InvalidInput) as raised:
                await speak(bench, *segments)
            assert raised.value.reason == "TEXT_EMPTY"
            assert bench.at_rest

    asyncio.run(run())


def test_quick_languages_are_read_where_they_are_asked_for() -> None:
    async def run() -> None:
        front_end = FrontEnd()
        bench = bench_with(front_end, "he")
        stream = await bench.engine.open(make_voice(), Sampling(seed=1))
        for language in ("", "en", "de"):
            stream.prepare(Segment(0, TEXT, language=language))
            await stream._drop_all()
        assert [thread for *_, thread in front_end.reads] == [threading.main_thread()] * 3
        assert len(bench.t3.started) == 3, "T3 has begun before anything is awaited"
        await stream.close()

    asyncio.run(run())


def test_a_load_that_hangs_is_bounded_and_keeps_nothing_else() -> None:
    released, loads = threading.Event(), list[str]()

    def load(language: str) -> None:
        loads.append(language)
        if language == "he":
            released.wait(WAIT_S)

    async def run() -> None:
        bench = bench_with(FrontEnd(), "he")
        workers = LanguageWorkers(0.05)
        bench.engine.stages = replace(bench.engine.stages, load_language=load, languages=workers)
        ends = await asyncio.gather(*(bench.engine.load_language("he") for _ in range(3)), return_exceptions=True)
        with pytest.raises(TimeLimitExceeded) as at_once:
            await bench.engine.load_language("he")
        for error in (*ends, at_once.value):
            assert isinstance(error, TimeLimitExceeded)
            assert (error.reason, error.retryable) == ("LANGUAGE_TIMEOUT", True)
            assert "language he" in str(error)
            assert "retry" in str(error)
        workers._load_limit_s = WAIT_S
        await bench.engine.load_language("ja")
        assert isinstance((await speak(bench, Segment(0, TEXT)))[-1], SegmentDone)
        released.set()
        await workers._worker("he").run_within(WAIT_S, int)  # behind the load
        await bench.engine.load_language("he")
        assert loads == ["he", "ja"], "it has been loaded after all"

    asyncio.run(run())


def test_a_text_that_is_never_read_ends_its_stream_with_an_error_that_says_to_retry() -> None:
    async def run() -> None:
        front_end = FrontEnd()
        bench = bench_with(front_end, "he")
        bench.engine.stages = replace(bench.engine.stages, languages=LanguageWorkers(600.0, 0.05))
        held = front_end.hold(TEXT)
        with pytest.raises(TimeLimitExceeded) as raised:
            await speak(bench, Segment(0, TEXT, language="he"))
        assert (raised.value.reason, raised.value.retryable) == ("LANGUAGE_TIMEOUT", True)
        assert bench.at_rest
        assert isinstance((await speak(bench, Segment(0, "other text")))[-1], SegmentDone)
        held.set()

    asyncio.run(run())
