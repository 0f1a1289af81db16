"""Which server a stream goes to, and how it moves on when its own fails before the first audio."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack

import pytest

import mynah
from engines.fake import Script
from mynah.client.events import Event, SegmentStarted
from mynah.client.servers import Server, choose_server
from tests.service.serving import Serving, serving

SLOW = Script(token_s=0.01)
WORDS = ["One ", "stream ", "among ", "many. "]


class NoChannel:
    def __getattr__(self, kind: str) -> object:
        return lambda *_, **__: None


def server(address: str, streams: int = 0, capacity: int = 10) -> Server:
    made = Server(address, NoChannel(), NoChannel())
    made.open_streams, made.capacity = streams, capacity
    return made


def test_the_less_loaded_of_two_is_chosen_and_no_server_is_overrun():
    servers = [server("full", 9), server("half", 5), server("empty", 0)]
    draw = random.Random(1)
    chosen = Counter(choose_server(servers, 0.0, draw).address for _ in range(3000))
    assert chosen["full"] == 0
    assert 800 < chosen["half"] < 1200  # where "full" was the other one
    assert 1800 < chosen["empty"] < 2200


def test_load_is_streams_per_capacity_with_this_clients_changes():
    half = server("a", streams=5)
    half.own_streams_at_poll, half.own_streams = 2, 4
    assert half.load == pytest.approx(0.7)


def test_servers_that_cool_down_or_failed_this_stream_come_last():
    fresh, resting, tried = server("fresh"), server("resting"), server("tried")
    resting.cooling_until_s = 10.0
    draw = random.Random(1)
    assert choose_server([fresh, resting, tried], 5.0, draw, ["tried"]) is fresh
    assert choose_server([resting, tried], 5.0, draw, ["tried"]) is tried
    assert choose_server([resting], 5.0, draw) is resting


async def spoken(client: mynah.Client) -> list[Event]:
    async with client.stream() as stream:
        for word in WORDS:
            await stream.send(word)
        await stream.end()
        return [event async for event in stream.events()]


def samples(events: list[Event]) -> int:
    return sum(event.samples for event in events if isinstance(event, mynah.AudioChunk))


async def two(stack: AsyncExitStack, script: Script | None = None, **options: int) -> tuple[Serving, Serving]:
    first = await stack.enter_async_context(serving(script, **options))
    second = await stack.enter_async_context(serving(script, **options))
    return first, second


async def test_streams_spread_over_servers():
    async with AsyncExitStack() as stack:
        servers = await two(stack, SLOW, max_streams=8)
        async with mynah.Client([at.address for at in servers]) as client, AsyncExitStack() as streams:
            for _ in range(8):
                await streams.enter_async_context(client.stream())
            in_use = [at.server.admission.streams.in_use for at in servers]
            assert sum(in_use) == 8
            assert min(in_use) >= 3


async def test_a_full_server_is_skipped():
    async with AsyncExitStack() as stack:
        servers = await two(stack, max_streams=1)
        async with mynah.Client([at.address for at in servers]) as client, client.stream(), client.stream():
            assert [at.server.admission.streams.in_use for at in servers] == [1, 1]
            with pytest.raises(mynah.ServerBusy):
                async with mynah.Client([at.address for at in servers], moves=1) as other, other.stream():
                    pass


async def test_a_stream_without_audio_moves_if_its_server_dies_and_gets_every_event_once():
    async with AsyncExitStack() as stack:
        first, second = await two(stack, SLOW)
        async with mynah.Client([first.address, second.address]) as client, client.stream() as stream:
            on_first = first.server.admission.streams.in_use == 1
            dying, other = (first, second) if on_first else (second, first)
            for word in WORDS:
                await stream.send(word)
            await stream.end()
            events = stream.events()
            received = [await anext(events)]
            assert isinstance(received[0], SegmentStarted)
            await dying.server.stop(0)
            received += [event async for event in events]
        assert [type(event) for event in received].count(SegmentStarted) == 1
        assert samples(received) == len("One stream among many.") * 960
        await other.settled()


async def test_a_stream_with_audio_ends_with_a_retryable_error():
    async with AsyncExitStack() as stack:
        first, second = await two(stack, SLOW)
        async with mynah.Client([first.address, second.address]) as client, client.stream() as stream:
            dying = first if first.server.admission.streams.in_use else second
            for word in WORDS:
                await stream.send(word)
            await stream.end()
            audio = aiter(stream)
            await anext(audio)
            await dying.server.stop(0)
            with pytest.raises(mynah.MynahError) as raised:
                _ = [chunk async for chunk in audio]
            assert raised.value.retryable


async def test_one_server_is_tried_once_unless_moves_allow_more():
    async with serving(warm=False) as at:
        with pytest.raises(mynah.Unavailable):
            await spoken(at.client)
        async with mynah.Client(at.address, moves=20) as patient:
            waiting = asyncio.create_task(spoken(patient))
            await asyncio.sleep(0)
            await at.server.warm_up()
            assert samples(await waiting) == len("One stream among many.") * 960


async def test_wrong_requests_are_not_tried_anywhere_else():
    async with AsyncExitStack() as stack:
        servers = await two(stack)
        async with mynah.Client([at.address for at in servers]) as client:
            with pytest.raises(mynah.NotFound):
                async with client.stream(voice="nobody"):
                    pass


async def test_synthesize_moves_as_well():
    async with AsyncExitStack() as stack:
        first, second = await two(stack)
        async with mynah.Client([first.address, second.address]) as client:
            await first.server.stop(0)
            for _ in range(4):
                assert sum([chunk.samples async for chunk in client.synthesize("All is well.")]) == 12 * 960


async def test_a_name_is_resolved_to_its_servers():
    async with serving() as at:
        port = at.address.rpartition(":")[2]
        async with mynah.Client(f"dns:localhost:{port}", moves=3) as client:
            assert samples(await spoken(client)) == len("One stream among many.") * 960
    with pytest.raises(mynah.Unavailable) as raised:
        async with mynah.Client("dns:no-such-host.invalid:1"):
            pass
    assert raised.value.reason == "NAME_UNKNOWN"


def test_addresses_and_names_do_not_mix():
    with pytest.raises(mynah.WrongState):
        mynah.Client(["127.0.0.1:1", "dns:somewhere:2"])
