"""Which windows are decoded next, and which together: decisions on given times, without a device."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from engines.s3gen.streaming.decode_times import DecodeTimes
from engines.s3gen.streaming.segment_decoder import SegmentDecoder
from engines.s3gen.streaming.window_queue import DecodeRequest, WindowQueue
from engines.s3gen.streaming.windows import Window
from tests.engines.fakes import FakeRuntime, make_voice


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@dataclass
class FixedPlan:
    """A plan that enlarges every window to the same one."""

    window: Window
    made_tokens: int = 0

    def enlarge(self, window: Window, now_s: float) -> Window:
        return self.window


class Bench:
    """A queue over a device on which a call costs what `shared_work` tokens cost, and a token 1 ms."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, max_batch: int = 8, shared_work: float = 200.0) -> None:
        times = DecodeTimes(shared_work)
        times.observe(1000, (shared_work + 1000) / 1000)
        self.queue = WindowQueue(FakeRuntime(), times, max_batch)
        self._loop, self._voice = loop, make_voice(20)

    def add(
        self, name: int, *, index: int = 1, deadline_s: float = 0.0, hop: int = 25, enlarge_to: int = 0
    ) -> DecodeRequest:
        """A window that costs 20 + 2 x hop tokens; `name` is found again in what `next_batch` returns."""
        decoder = SegmentDecoder(self._voice, seed=name)
        decoder.speech_tokens = [name] * 500

        plan = FixedPlan(self._window(index, enlarge_to)) if enlarge_to else None
        request = DecodeRequest(decoder, self._window(index, hop), self._loop.create_future(), 0.0, deadline_s, plan)
        self.queue.add(request)
        return request

    @staticmethod
    def _window(index: int, hop: int) -> Window:
        return Window(index, 0, 0, hop, hop, is_last=True)

    def next_batch(self, now_s: float = 0.0) -> list[int]:
        return [request.decoder.seed for request in self.queue.next_batch(now_s)]


def test_streams_about_to_run_dry_go_before_first_windows_and_those_before_the_rest(loop) -> None:
    bench = Bench(loop, max_batch=1)
    bench.add(1, deadline_s=100.0)
    bench.add(2, index=0, deadline_s=9.9)
    bench.add(3, deadline_s=10.1)
    bench.add(4, deadline_s=10.2)
    bench.add(5, index=0, deadline_s=9.8)
    assert [bench.next_batch(now_s=10.0) for _ in range(5)] == [[3], [4], [5], [2], [1]]


def test_a_first_window_does_not_wait_for_ever(loop) -> None:
    bench = Bench(loop, max_batch=1)
    bench.add(1, index=0, deadline_s=5.0)
    bench.add(2, deadline_s=10.1)
    assert bench.next_batch(now_s=10.0) == [1]


def test_waiting_windows_of_a_shape_share_a_call(loop) -> None:
    bench = Bench(loop)
    for name in range(10):
        bench.add(name, index=0, hop=25 if name % 2 else 100)
    assert bench.next_batch() == [0, 2, 4, 6, 8]
    assert bench.next_batch() == [1, 3, 5, 7, 9]
    assert bench.next_batch() == []


def test_windows_do_not_share_a_call_that_saves_nothing(loop) -> None:
    bench = Bench(loop, shared_work=1.0)
    for name in range(3):
        bench.add(name, index=0)
    assert [bench.next_batch() for _ in range(3)] == [[0], [1], [2]]


def test_sharing_a_call_makes_no_window_late_that_could_be_in_time(loop) -> None:
    bench = Bench(loop)  # alone 0.27 s, two 0.34 s
    bench.add(1, deadline_s=0.3)
    bench.add(2, index=0)
    assert bench.next_batch() == [1]
    assert bench.next_batch() == [2]
    bench.add(3, deadline_s=0.2)  # late whatever is done
    bench.add(4, index=0)
    assert bench.next_batch() == [3, 4]


def test_a_waiting_window_is_enlarged_before_it_is_taken(loop) -> None:
    bench = Bench(loop)
    request = bench.add(1, hop=10, enlarge_to=50)
    assert (request.tokens, request.work) == (30, 40)
    assert bench.next_batch() == [1]
    assert (request.window.stop, request.tokens, request.work) == (50, 70, 120)


def test_what_was_dropped_is_not_taken(loop) -> None:
    bench = Bench(loop)
    requests = [bench.add(name, index=0) for name in range(3)]
    bench.queue.drop(requests[1])
    bench.queue.drop(requests[1])
    assert len(bench.queue) == 2
    assert bench.next_batch() == [0, 2]
    bench.add(3)
    assert [request.decoder.seed for request in bench.queue.clear()] == [3]
    assert len(bench.queue) == 0


def test_only_windows_that_are_certain_to_be_late_count(loop) -> None:
    bench = Bench(loop)  # the window takes 0.27 s
    bench.add(0, index=0, deadline_s=-9.0)
    request = bench.add(1, deadline_s=0.25)
    assert not bench.queue.will_miss_deadline([], busy_s=0.0, now_s=0.0), "expectations err"
    assert bench.queue.will_miss_deadline([], busy_s=0.2, now_s=0.0)
    bench.queue.drop(request)
    assert not bench.queue.will_miss_deadline([], busy_s=9.0, now_s=0.0), "a first window is always awaited"
    assert bench.queue.will_miss_deadline([request], busy_s=0.4, now_s=0.0)
