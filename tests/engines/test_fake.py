"""The fake engine on virtual time: what its scripted capacity carries, and what becomes of streams beyond it."""

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
    raise AssertionError("a segment without an end")


def crowd(script: Script, streams: int, gap_s: float = 0.0) -> list[SegmentStats]:
    async def run() -> list[SegmentStats]:
        engine = FakeEngine(script, max_streams=streams)
        stats = await asyncio.gather(*(listen(engine, gap_s * i) for i in range(streams)))
        assert engine.at_rest
        return stats

    return virtual_time(run())


@pytest.mark.parametrize("gap_s", [0.0, 0.05])
def test_64_streams_hear_no_gap_where_the_capacity_suffices(gap_s: float) -> None:
    heard = crowd(CARRIES_64, 64, gap_s)
    assert sum(s.underruns for s in heard) == 0
    assert max(s.ttfa_s for s in heard) <= 0.1 + 64 * 0.01 + 1e-6, "the last of a burst waits for all others once"
    assert min(s.min_buffer_s or 0.0 for s in heard) > 0


def test_beyond_the_capacity_all_wait_alike_and_no_longer_than_the_work_takes() -> None:
    heard = crowd(CARRIES_64, 128)
    silence_s = [s.underrun_s for s in heard]
    assert min(silence_s) > 0
    assert max(silence_s) < 1.5 * min(silence_s)
    assert max(s.ttfa_s + s.underrun_s for s in heard) < 128 * 10 * 0.01, "there is no more work than this"


def test_a_stall_is_an_underrun_with_its_duration() -> None:
    (heard,) = crowd(Script(decode_s=2.0, first_hop_tokens=25), 1)
    assert heard.underruns == 9
    assert heard.underrun_s == pytest.approx(9 * 1.0)
    assert heard.max_gap_s == pytest.approx(2.0)
    assert heard.min_buffer_s == 0.0


def test_cancelled_streams_give_their_turn_to_others() -> None:
    async def run() -> list[SegmentStats]:
        engine = FakeEngine(CARRIES_64, max_streams=128)
        tasks = [asyncio.create_task(listen(engine, 0.0)) for _ in range(128)]
        for task in tasks[::2]:
            asyncio.get_running_loop().call_later(0.2, task.cancel)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert engine.at_rest
        return [outcome for outcome in outcomes if isinstance(outcome, SegmentStats)]

    heard = virtual_time(run())
    assert len(heard) == 64
    assert sum(s.underruns for s in heard) == 0
