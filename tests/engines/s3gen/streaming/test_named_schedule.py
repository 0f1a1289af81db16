"""The schedule of a stream with a seed: by the load when it opens, and what that carries, on virtual time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.config import SCHEDULE_NAMES, Sampling
from engines.errors import InvalidInput
from engines.s3gen.streaming.decode_times import DecodeForecast, DecodeTimes
from engines.s3gen.streaming.named_schedule import Load, schedule_for
from engines.s3gen.streaming.schedule import SCHEDULES
from tests.engines.test_scheduling import VOICE, Device, Result, listen
from tests.virtual_time import virtual_time


def forecast(shared_work: float = 300.0, pace_s: float = 0.0) -> DecodeForecast:
    times = DecodeTimes(shared_work)
    if pace_s:
        times.observe(100, pace_s * (shared_work + 100))
    return DecodeForecast(times, max_rows=8, cached=False)


def chosen(streams: int, pace_s: float, smallest: str = "balanced", token_s: float = 0.0) -> str:
    return schedule_for(SCHEDULES[smallest], 250, Load(streams, 10_000, token_s, forecast(pace_s=pace_s), 0.0)).name


def test_an_idle_server_takes_its_own_and_a_full_one_larger_windows() -> None:
    assert chosen(1, 0.0) == "balanced", "nothing was measured yet"
    assert chosen(1, 1e-4) == "balanced"
    assert chosen(1, 1e-4, "lowest_latency") == "lowest_latency"
    assert chosen(1000, 1e-4) == "crowd"
    assert chosen(1000, 1e-4, "throughput") == "crowd"
    assert chosen(1, 1e-4, token_s=0.035) != "balanced", "T3 is as slow as the speech"


@given(st.floats(1e-5, 1e-2), st.integers(1, 64), st.sampled_from(SCHEDULE_NAMES))
def test_more_streams_never_get_smaller_windows(pace_s: float, streams: int, smallest: str) -> None:
    names = [chosen(count, pace_s, smallest) for count in (1, streams, 2 * streams)]
    order = [SCHEDULE_NAMES.index(name) for name in names]
    assert order == sorted(order)
    assert order[0] >= SCHEDULE_NAMES.index(smallest)


@pytest.mark.parametrize("schedule", ["", "crowd", "offline"])
def test_a_named_schedule_is_one_of_the_list(schedule: str) -> None:
    assert Sampling(schedule=schedule).schedule == schedule
    with pytest.raises(InvalidInput, match="one of lowest_latency, balanced, throughput, crowd, offline") as raised:
        Sampling(schedule=f"{schedule}s")
    assert raised.value.reason == "SCHEDULE_UNKNOWN"


async def crowd(count: int, *, seeded: bool, gap_s: float = 0.05) -> list[Result]:
    """Streams that begin one after the other on a device of the port's size: two cores of a small server."""
    engine, *_ = Device(call_s=0.06, token_s=2.5e-4, max_batch=8).engine()
    warm = await engine.open(VOICE, Sampling())  # as a server's warm-up does: one call is measured
    await listen(engine, 0.0, tokens=30)
    await warm.close()

    async def one(start_s: float) -> Result:
        await asyncio.sleep(start_s)
        schedule = engine.schedule_now(VOICE, 500) if seeded else ""
        return await listen(engine, 0.0, 250, repeatable=seeded, schedule=schedule)

    return await asyncio.gather(*(one(gap_s * i) for i in range(count)))


def silence_s(streams: int, *, seeded: bool) -> float:
    """The silence that all listeners hear together."""
    return sum(result.underrun_s for result in virtual_time(crowd(streams, seeded=seeded)))


def test_streams_with_a_seed_are_nearly_as_many() -> None:
    """With a first sound that is later, as each of them has large windows from the first on."""
    assert silence_s(10, seeded=False) == 0
    assert silence_s(8, seeded=True) == 0


def test_the_same_seed_and_schedule_give_the_same_bytes_under_any_load() -> None:
    async def spoken(company: int, schedule: str) -> bytes:
        engine, *_ = Device(call_s=0.06, token_s=2.5e-4).engine()
        others = [asyncio.create_task(listen(engine, 0.01 * i)) for i in range(company)]
        await asyncio.sleep(0.5)
        chosen_now = schedule or engine.schedule_now(VOICE, 500)
        result = await listen(engine, 0.0, 250, repeatable=True, schedule=chosen_now)
        await asyncio.gather(*others)
        return result.audio

    alone = {name: virtual_time(spoken(0, name)) for name in SCHEDULE_NAMES}
    for name, audio in alone.items():
        assert virtual_time(spoken(6, name)) == audio
    assert virtual_time(spoken(0, "")) == alone["balanced"]
    assert len(set(alone.values())) > 1, "windows show in the samples"


def test_offline_streams_take_one_window_a_segment_behind_all_listeners() -> None:
    async def run() -> tuple[Result, Result, list[Result]]:
        engine, *_ = Device(call_s=0.5, token_s=2.5e-4, max_batch=1, t3_token_s=0.0).engine()
        first = asyncio.create_task(listen(engine, 0.0, 100, repeatable=True, schedule="offline"))
        second = asyncio.create_task(listen(engine, 0.01, 100, repeatable=True, schedule="offline"))
        live = [asyncio.create_task(listen(engine, 0.1, 20)) for _ in range(2)]
        results = await asyncio.gather(*live)
        return await first, await second, list(results)

    first, second, live = virtual_time(run())
    assert (first.windows, second.windows) == (1, 1)
    assert first.ttfa_s < 0.6, "nothing else was there yet"
    assert second.ttfa_s > max(each.ttfa_s for each in live)
    assert max(each.ttfa_s for each in live) < 1.6, "the second waits for both"


def test_streams_that_have_not_spoken_yet_count() -> None:
    async def run() -> tuple[str, str, str]:
        engine, *_ = Device(call_s=0.06, token_s=2.5e-4).engine()
        await listen(engine, 0.0, tokens=30)
        before = engine.schedule_now(VOICE, 500)
        for _ in range(200):
            await engine.open(VOICE, Sampling())
        after, with_one = engine.schedule_now(VOICE, 500), engine.schedule_now(VOICE, 1)
        await engine.close()
        return before, after, with_one

    assert virtual_time(run()) == ("balanced", "crowd", "balanced"), "one stream is all that the last server admits"
