"""The bounded queue: order, waiting for room, dropping, its end."""

from __future__ import annotations

import asyncio

import pytest

from service.stream.event_queue import EventQueue
from tests.virtual_time import virtual_time


def test_a_writer_waits_for_room_and_order_is_kept():
    async def run() -> None:
        event_queue: EventQueue[int] = EventQueue(2)
        written: list[int] = []

        async def write() -> None:
            for number in range(5):
                await event_queue.put(number)
                written.append(number)
            event_queue.finish()

        task = asyncio.create_task(write())
        await asyncio.sleep(1)
        assert written == [0, 1]
        assert await event_queue.get() == 0
        await asyncio.sleep(1)
        assert written == [0, 1, 2]
        assert [await event_queue.get() for _ in range(5)] == [1, 2, 3, 4, None]
        await task

    virtual_time(run())


def test_a_cancelled_put_adds_nothing():
    async def run() -> None:
        event_queue: EventQueue[int] = EventQueue(1)
        await event_queue.put(1)
        waiting = asyncio.create_task(event_queue.put(2))
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.wait([waiting])
        event_queue.finish()
        assert [await event_queue.get(), await event_queue.get()] == [1, None]

    virtual_time(run())


def test_dropping_makes_room_and_keeps_what_is_to_be_kept():
    async def run() -> None:
        event_queue: EventQueue[int] = EventQueue(3)
        for number in (1, 2, 3):
            await event_queue.put(number)
        waiting = asyncio.create_task(event_queue.put(4))
        await asyncio.sleep(1)
        assert event_queue.drop(keep=lambda number: number == 2) == [1, 3]
        await waiting
        assert [await event_queue.get(), await event_queue.get()] == [2, 4]

    virtual_time(run())


def test_a_failure_comes_after_what_was_put_before_it():
    async def run() -> None:
        event_queue: EventQueue[int] = EventQueue(3)
        await event_queue.put(1)
        event_queue.finish(ValueError("broken"))
        assert event_queue.failed
        assert await event_queue.get() == 1
        with pytest.raises(ValueError, match="broken"):
            await event_queue.get()

    virtual_time(run())


def test_a_reader_that_waits_learns_of_the_end():
    async def run() -> None:
        event_queue: EventQueue[int] = EventQueue(1)
        reading = asyncio.create_task(event_queue.get())
        await asyncio.sleep(1)
        event_queue.finish()
        assert await reading is None

    virtual_time(run())
