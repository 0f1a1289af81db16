"""Health over gRPC: watches are limited, do not delay each other, and calls of a connection are limited."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.grpc import health, size_interceptor
from service.grpc.health import HealthService
from tests.service.serving import Serving, error_of, serving

_MAX_CONCURRENT_STREAMS = 3  # HTTP/2's number of the setting
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def watch(channel: grpc.aio.Channel, service: str = "") -> Any:
    stub = health_pb2_grpc.HealthStub(channel)
    return stub.Watch(health_pb2.HealthCheckRequest(service=service))


async def status(call: Any) -> int:
    """The next status that a watch reports."""
    answer = await call.read()
    assert answer is not grpc.aio.EOF, await call.details()
    return answer.status


def connection(at: Serving, name: str) -> grpc.aio.Channel:
    """A channel that shares its connection with no other."""
    return grpc.aio.insecure_channel(at.address, options=[("test.name", name)])


async def test_a_watch_that_ends_does_not_silence_the_others():
    async with serving() as at:
        first, second = watch(at.channel), watch(at.channel)
        assert [await status(first), await status(second)] == [SERVING, SERVING]
        first.cancel()
        while at.server.health.watches > 1:  # noqa: ASYNC110 - what the server counts
            await asyncio.sleep(0)
        at.server.health.set("", NOT_SERVING)
        assert await status(second) == NOT_SERVING


async def test_a_connection_has_a_bounded_number_of_watches():
    async with serving() as at:
        calls = [watch(at.channel) for _ in range(health.MAX_WATCHES_OF_CONNECTION)]
        assert {await status(call) for call in calls} == {SERVING}
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await status(watch(at.channel))
        error = error_of(raised.value)
        assert (error.code, error.reason, error.retryable) == ("RESOURCE_EXHAUSTED", "WATCHES_EXHAUSTED", True)
        calls.pop().cancel()
        while at.server.health.watches == health.MAX_WATCHES_OF_CONNECTION:  # noqa: ASYNC110 - what the server counts
            await asyncio.sleep(0)
        assert await status(watch(at.channel)) == SERVING
        assert (await health_pb2_grpc.HealthStub(at.channel).Check(health_pb2.HealthCheckRequest())).status == SERVING


async def test_at_the_limit_the_connection_with_the_most_watches_loses_one():
    async with serving() as at, connection(at, "greedy") as greedy, connection(at, "probe") as probe:
        at.server.health.allow(3)
        held, modest = [watch(greedy), watch(greedy)], watch(at.channel)
        for call in (*held, modest):
            assert await status(call) == SERVING
        assert await status(watch(probe)) == SERVING
        ends = {asyncio.ensure_future(call.code()): call for call in held}
        (ended,), (left,) = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        assert ended.result() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert at.server.health.watches == 3
        at.server.health.set("", NOT_SERVING)
        assert [await status(modest), await status(ends[left])] == [NOT_SERVING, NOT_SERVING]
        left.cancel()


class Unread:
    """The context of a call whose client reads nothing."""

    def peer(self) -> str:
        return "a client"

    async def write(self, _: Any) -> None:
        await asyncio.Event().wait()


async def test_a_client_that_reads_nothing_does_not_hold_up_changes():
    service = HealthService()
    service.set("", SERVING)
    watching = asyncio.create_task(service.Watch(health_pb2.HealthCheckRequest(), Unread()))
    while not service.watches:  # noqa: ASYNC110 - what the server counts
        await asyncio.sleep(0)
    service.set("", NOT_SERVING)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert service.watches == 0


async def test_a_call_whose_message_does_not_come_ends(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(size_interceptor, "MESSAGE_TIMEOUT_S", 0.05)
    async with serving() as at:
        for method in ("grpc.health.v1.Health/Check", "mynah.v1.Speech/GetServerInfo", "mynah.v1.Speech/Synthesize"):
            call = at.channel.stream_stream(f"/{method}")()
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call.read()
            assert error_of(raised.value).reason == "MESSAGE_STALLED"
            call = at.channel.stream_stream(f"/{method}")()
            await call.done_writing()
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call.read()
            assert error_of(raised.value).reason == "MESSAGE_INVALID"


async def test_a_connection_has_a_bounded_number_of_open_calls():
    """The server announces the limit to the client in HTTP/2's settings."""
    async with serving() as at:
        reader, writer = await asyncio.open_connection(*at.address.rsplit(":", 1))
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
        head = await reader.readexactly(9)
        settings = await reader.readexactly(int.from_bytes(head[:3]))
        writer.close()
        values = dict(struct.iter_unpack("!HI", settings))
        assert values[_MAX_CONCURRENT_STREAMS] == 64 + 2 * 4 + 4
