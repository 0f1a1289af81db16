"""Tests of the fake engine on virtual time: streams within its scripted capacity, and beyond it."""

from __future__ import annotations

import asyncio

import pytest

from engines.api import Segment, SegmentDone, SegmentStats
from engines.config import Sampling
from engines.fake import FakeEngine, Script
from tests.virtual_time import virtual_time

# A window of one second every second for each of 64 streams keeps the decoder busy for 0.64 s.
CARRIES_64 = Script(token_s=0.004, decode_s=0.01, decoders=1, first_hop_tokens=25)


async def listen(engine: FakeEngine, start_s: float, chars: int = 250) -> SegmentStats:
    await asyncio.sleep(start_s)
    assert engine.default_voice is not None
    stream = await engine.open(engine.default_voice, Sampling())
    try:
        async for event in stream.speak(Segment(0, "x" * chars)):
            if isinstance(event, SegmentDone):
                return event.stats
    finally:
        await stream.close()
    raise AssertionError("the segment did not end")


def crowd(script: Script, streams: int, gap_s: float = 0.0) -> list[SegmentStats]:
    async def run() -> list[SegmentStats]:
        engine = FakeEngine(script, max_streams=streams)
        stats = await asyncio.gather(*(listen(engine, gap_s * i) for i in range(streams)))
        assert engine.at_rest
        return stats

    return virtual_time(run())


@pytest.mark.parametrize("gap_s", [0.0, 0.05])
def test_64_streams_within_the_capacity_have_no_underruns(gap_s: float) -> None:
    stats = crowd(CARRIES_64, 64, gap_s)
    assert sum(s.underruns for s in stats) == 0
    assert max(s.ttfa_s for s in stats) <= 0.1 + 64 * 0.01 + 1e-6, "the last of a burst waits for all others once"
    assert min(s.min_buffer_s or 0.0 for s in stats) > 0


def test_beyond_the_capacity_all_streams_wait_equally_long() -> None:
    stats = crowd(CARRIES_64, 128)
    silence_s = [s.underrun_s for s in stats]
    assert min(silence_s) > 0
    assert max(silence_s) < 1.5 * min(silence_s)
    assert max(s.ttfa_s + s.underrun_s for s in stats) < 128 * 10 * 0.01, (
        "all streams take as long as their windows together"
    )


def test_a_stall_is_an_underrun_with_its_duration() -> None:
    (stats,) = crowd(Script(decode_s=2.0, first_hop_tokens=25), 1)
    assert stats.underruns == 9
    assert stats.underrun_s == pytest.approx(9 * 1.0)
    assert stats.max_gap_s == pytest.approx(2.0)
    assert stats.min_buffer_s == 0.0


def test_cancelled_streams_free_the_capacity() -> None:
    async def run() -> list[SegmentStats]:
        engine = FakeEngine(CARRIES_64, max_streams=128)
        tasks = [asyncio.create_task(listen(engine, 0.0)) for _ in range(128)]
        for task in tasks[::2]:
            asyncio.get_running_loop().call_later(0.2, task.cancel)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert engine.at_rest
        return [outcome for outcome in outcomes if isinstance(outcome, SegmentStats)]

    stats = virtual_time(run())
    assert len(stats) == 64
    assert sum(s.underruns for s in stats) == 0
