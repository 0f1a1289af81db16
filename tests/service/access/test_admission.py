"""Admission: slots are counted exactly, rejections are immediate, the states only move forward."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack, suppress

import pytest

from service.access.admission import Admission, Slots
from service.errors import ResourceExhausted, Unavailable
from tests.virtual_time import virtual_time


def opened(streams: int = 2, uploads: int = 1) -> Admission:
    admission = Admission(streams, uploads)
    admission.open()
    return admission


def test_slots_are_acquired_and_released_also_after_an_exception():
    admission = opened(2)
    with admission.stream(), admission.stream():
        assert admission.streams.in_use == 2
        with pytest.raises(ResourceExhausted) as raised, admission.stream():
            pass
        assert (raised.value.reason, raised.value.retry_after_s) == ("STREAMS_EXHAUSTED", 1.0)
        assert raised.value.allowed == "2 streams"
    with pytest.raises(ZeroDivisionError), admission.stream():
        raise ZeroDivisionError
    assert admission.streams.in_use == 0


def test_the_retry_delay_follows_how_long_streams_last():
    now_s = 0.0
    slots = Slots(4, "streams", "STREAMS_EXHAUSTED", lambda: now_s)
    for _ in range(60):
        with slots.acquire():
            now_s += 8.0
    assert slots.retry_after_s == pytest.approx(2.0)  # of four that last 8 s one ends every 2 s
    for hold_s, bound_s in ((0.001, 0.2), (1000.0, 30.0)):
        for _ in range(100):
            with slots.acquire():
                now_s += hold_s
        assert slots.retry_after_s == bound_s


def test_warm_up_sets_the_capacity():
    admission = Admission(16, 1)
    admission.open(1)
    with admission.stream(), pytest.raises(ResourceExhausted) as raised, admission.stream():
        pass
    assert raised.value.allowed == "1 streams"


def test_rejections_are_fast_with_any_number_of_open_streams():
    admission = opened(1000)
    with ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(admission.stream())
        began_s = time.perf_counter()
        for _ in range(1000):
            with pytest.raises(ResourceExhausted), admission.stream():
                pass
        assert (time.perf_counter() - began_s) / 1000 < 0.001


def test_uploads_have_slots_of_their_own():
    admission = opened(1, 1)
    with admission.stream(), admission.upload(), pytest.raises(ResourceExhausted) as raised, admission.upload():
        pass
    assert raised.value.reason == "UPLOADS_EXHAUSTED"


def test_calls_are_rejected_before_the_warm_up_and_while_draining():
    admission = Admission(1, 1)
    with pytest.raises(Unavailable) as raised, admission.stream():
        pass
    assert raised.value.reason == "NOT_READY"
    admission.open()
    with admission.stream():
        admission.drain()
    with pytest.raises(Unavailable) as raised, admission.upload():
        pass
    assert raised.value.reason == "DRAINING"
    admission.open()  # too late
    with pytest.raises(Unavailable):
        admission.check_serving()


def measured(streams: int, room: int) -> Admission:
    """The device carries `streams` in real time, and the engine has room for more."""
    admission = Admission(room, 1)
    admission.open(streams, room)
    return admission


def held(admission: Admission, stack: ExitStack, count: int, *, offline: bool) -> int:
    """Opens up to `count` streams; returns how many were admitted."""
    before = admission.open_streams
    with suppress(ResourceExhausted):
        for _ in range(count):
            stack.enter_context(admission.stream(offline=offline))
    return admission.open_streams - before


def test_streams_without_a_listener_fill_an_idle_engine_and_leave_room_for_a_listener():
    admission = measured(2, 16)
    with ExitStack() as stack:
        assert held(admission, stack, 20, offline=True) == 15
        with pytest.raises(ResourceExhausted) as raised, admission.stream(offline=True):
            pass
        assert raised.value.reason == "OFFLINE_STREAMS_EXHAUSTED"
        assert held(admission, stack, 1, offline=False) == 1, "those without a listener are not counted against it"
        assert held(admission, stack, 1, offline=False) == 0, "the engine is full"
        assert admission.open_streams == 16
    assert admission.open_streams == 0


def test_beside_a_listener_streams_without_one_have_what_it_leaves_of_the_capacity():
    admission = measured(3, 16)
    with ExitStack() as stack:
        held(admission, stack, 1, offline=False)
        assert held(admission, stack, 5, offline=True) == 2
        assert held(admission, stack, 5, offline=False) == 2, "they do not keep listeners out"
        assert held(admission, stack, 1, offline=True) == 0
    with ExitStack() as stack:
        assert held(admission, stack, 20, offline=True) == 15, "the listeners have left"


def test_where_the_capacity_is_the_operators_both_kinds_share_it():
    admission = opened(4)
    with ExitStack() as stack:
        assert held(admission, stack, 9, offline=True) == 4
        assert held(admission, stack, 1, offline=False) == 0


def test_draining_waits_for_open_streams():
    async def run() -> None:
        admission = opened()
        idle_at_s: list[float] = []

        async def hold() -> None:
            with admission.stream(), admission.stream(offline=True):
                await asyncio.sleep(3)

        async def wait() -> None:
            await admission.wait_idle()
            idle_at_s.append(asyncio.get_running_loop().time())

        holding = asyncio.create_task(hold())
        await asyncio.sleep(0)
        waiting = asyncio.create_task(wait())
        await asyncio.wait([holding, waiting])
        assert idle_at_s == [3]

    virtual_time(run())
