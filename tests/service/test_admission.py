"""The door: slots are counted exactly, refusal is immediate, the states only move forward."""

from __future__ import annotations

import asyncio

import pytest

from service.admission import Admission
from service.errors import NoRoom, NotServing
from tests.virtual_time import virtual_time


def opened(streams: int = 2, uploads: int = 1) -> Admission:
    admission = Admission(streams, uploads)
    admission.open()
    return admission


def test_slots_are_taken_and_given_back_also_by_those_who_fail():
    admission = opened(2)
    with admission.stream(), admission.stream():
        assert admission.streams.taken == 2
        with pytest.raises(NoRoom) as raised, admission.stream():
            pass
        assert (raised.value.reason, raised.value.retry_after_s) == ("STREAMS_EXHAUSTED", 1.0)
        assert raised.value.allowed == "2 streams"
    with pytest.raises(ZeroDivisionError), admission.stream():
        raise ZeroDivisionError
    assert admission.streams.taken == 0


def test_uploads_have_slots_of_their_own():
    admission = opened(1, 1)
    with admission.stream(), admission.upload(), pytest.raises(NoRoom) as raised, admission.upload():
        pass
    assert raised.value.reason == "UPLOADS_EXHAUSTED"


def test_nobody_comes_in_before_the_warm_up_or_while_draining():
    admission = Admission(1, 1)
    with pytest.raises(NotServing) as raised, admission.stream():
        pass
    assert raised.value.reason == "NOT_READY"
    admission.open()
    with admission.stream():
        admission.drain()
    with pytest.raises(NotServing) as raised, admission.upload():
        pass
    assert raised.value.reason == "DRAINING"
    admission.open()  # too late
    with pytest.raises(NotServing):
        admission.must_serve()


def test_draining_waits_for_those_inside():
    async def run() -> None:
        admission = opened()
        left: list[float] = []

        async def stay() -> None:
            with admission.stream():
                await asyncio.sleep(3)

        async def wait() -> None:
            await admission.all_left()
            left.append(asyncio.get_running_loop().time())

        staying = asyncio.create_task(stay())
        await asyncio.sleep(0)
        waiting = asyncio.create_task(wait())
        await asyncio.wait([staying, waiting])
        assert left == [3]

    virtual_time(run())
