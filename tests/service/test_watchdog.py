"""The watchdog's decisions, tick by tick, without a thread or a clock."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from engines.api import Segment
from engines.config import Sampling
from engines.fake import FakeEngine, Script, fake_voice
from service.errors import Unavailable
from service.telemetry import metrics
from service.telemetry.call_log import CallLog
from service.watchdog import Watchdog, WatchedEngine

SEGMENT = Segment(0, "All is well, and this goes on for a while.")
VOICE_SETTINGS = (fake_voice("Anna"), Sampling(seed=1))


class Watched:
    """A watchdog of 10 s that is ticked by hand, and what it did."""

    def __init__(self) -> None:
        self.calls = CallLog()
        self.stalls: list[Unavailable] = []
        self.left: list[str] = []
        self.healthy = True
        self.watchdog = Watchdog(10.0, self.stalls.append, calls=self.calls, leave=self.left.append)
        self.watchdog._loop = asyncio.get_running_loop()
        self.watchdog._healthy = lambda: self.healthy

    async def pass_s(self, seconds: int) -> None:
        """Ticks once a second, while the event loop runs."""
        for _ in range(seconds):
            self.watchdog.tick(1.0)
            await asyncio.sleep(0)

    @property
    def reasons(self) -> list[str]:
        return [error.reason for error in self.stalls]


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    yield Watched()
    for part in ("t3", "s3gen", "engine", "event_loop"):
        metrics.STALLED.labels(part).set(0)


async def test_a_call_that_does_not_return_stalls_the_engine_though_others_do(watched: Watched):
    with watched.calls.calling("s3gen"):
        for _ in range(10):
            with watched.calls.calling("t3"):
                await watched.pass_s(1)
        assert watched.reasons == []
        await watched.pass_s(2)
        assert watched.reasons == ["ENGINE_STALLED"]
        await watched.pass_s(50)
    assert watched.reasons == ["ENGINE_STALLED"]  # once
    assert watched.left == []


async def test_calls_that_return_never_stall_it(watched: Watched):
    for _ in range(100):
        with watched.calls.calling("t3"):
            await watched.pass_s(9)
    assert watched.reasons == []


async def test_slow_calls_make_it_more_patient(watched: Watched):
    watched.calls._recent_s["s3gen"].append(3.0)
    with watched.calls.calling("s3gen"):
        await watched.pass_s(30)
        assert watched.reasons == []
        await watched.pass_s(2)
    assert watched.reasons == ["ENGINE_STALLED"]


async def test_an_engine_that_is_being_rebuilt_may_take_longer(watched: Watched):
    watched.healthy = False
    with watched.calls.calling("t3"):
        await watched.pass_s(99)
        assert watched.reasons == []
        await watched.pass_s(3)
    assert watched.reasons == ["ENGINE_STALLED"]


async def test_a_stream_for_which_nothing_advances_stalls_it(watched: Watched):
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(watched.watchdog.guard(never))
    await watched.pass_s(10)
    assert watched.reasons == []
    await watched.watchdog.guard(asyncio.sleep(0))  # another stream advances
    await watched.pass_s(10)
    assert watched.reasons == []
    await watched.pass_s(3)
    assert watched.reasons == ["ENGINE_STALLED"]
    with pytest.raises(Unavailable, match="stalled"):
        await waiting
    assert never.cancelled()


async def test_without_a_stream_that_waits_nothing_has_to_advance(watched: Watched):
    await watched.pass_s(1000)
    assert (watched.reasons, watched.left) == ([], [])


async def test_an_event_loop_that_does_not_run_ends_the_process_after_twice_the_bound(watched: Watched):
    await watched.pass_s(3)
    for _ in range(20):
        watched.watchdog.tick(1.0)
    assert watched.left == []
    for _ in range(3):
        watched.watchdog.tick(1.0)
    assert watched.left[0].startswith("The event loop has stalled")
    assert watched.reasons == []


async def test_guarded_work_keeps_its_result_its_error_and_its_cancellation(watched: Watched):
    guard = watched.watchdog.guard

    async def fail() -> None:
        raise ValueError("its own")

    cleaned = asyncio.Event()

    async def clean_up() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    assert await guard(asyncio.sleep(0, "result")) == "result"
    with pytest.raises(ValueError, match="its own"):
        await guard(fail())
    cancelled = asyncio.ensure_future(guard(clean_up()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    cancelled.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await cancelled
    assert cancelled.cancelled()
    assert cleaned.is_set()  # it was awaited
    assert not watched.watchdog.left_behind


async def test_a_watched_engine_speaks_as_the_engine_does_and_frees_it(watched: Watched):
    plain, inner = FakeEngine(Script()), FakeEngine(Script())
    engine = WatchedEngine(inner, watched.watchdog)
    stream, expected = await engine.open(*VOICE_SETTINGS), await plain.open(*VOICE_SETTINGS)
    events = [type(event) async for event in stream.speak(SEGMENT)]
    assert events == [type(event) async for event in expected.speak(SEGMENT)]
    async with contextlib.aclosing(stream.speak(SEGMENT)) as speaking:
        await anext(speaking)
    assert inner.cancelled_segments == 1
    await stream.close()
    assert inner.at_rest
