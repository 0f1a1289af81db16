"""Calls that stay open without sending anything: their places go round fairly, and an honest call always has one."""

from __future__ import annotations

import asyncio
import select
import socket
from contextlib import ExitStack, suppress

import grpc.aio
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import mynah
from bench.attacks import PREFACE, call_head, frame
from mynah.v1 import speech_pb2
from service.errors import ResourceExhausted
from service.grpc import size_interceptor
from service.grpc.places import Places
from tests.service.serving import Serving, error_of, serving


def connection(at: Serving, name: str) -> grpc.aio.Channel:
    """A channel that shares its connection with no other."""
    return grpc.aio.insecure_channel(at.address, options=[("test.name", name)])


def test_the_connection_with_the_most_loses_its_oldest():
    places = Places("calls", "CALLS_EXHAUSTED", "retry", 4, 3)
    ended: list[str] = []
    with ExitStack() as held:
        for name in ("a1", "b1", "a2", "a3", "b2", "c1"):
            held.enter_context(places.hold(name[0], lambda name=name: ended.append(name)))
        assert ended == ["a1", "a2"]
        assert places.in_use == 4
        held.enter_context(places.hold("b", lambda: None))
        assert ended == ["a1", "a2", "b1"]
    assert places.in_use == 0
    assert not places._held
    assert not places._counts


def test_a_connection_has_its_own_limit():
    places = Places("calls", "CALLS_EXHAUSTED", "retry", 4, 1)
    with places.hold("a", lambda: None), pytest.raises(ResourceExhausted), places.hold("a", lambda: None):
        pass
    assert places.in_use == 0


@pytest.mark.parametrize("method", ["Speech/GetServerInfo", "Speech/StreamSpeech", "Voices/CreateVoice"])
async def test_calls_that_send_nothing_make_room(method: str):
    async with serving() as at, connection(at, "greedy") as greedy:
        at.server.messages.waiting.limit = 2
        idle = [greedy.stream_stream(f"/mynah.v1.{method}")() for _ in range(2)]
        while at.server.messages.waiting.in_use < 2:  # noqa: ASYNC110 - what the server counts
            await asyncio.sleep(0)
        assert await at.speech.GetServerInfo(speech_pb2.GetServerInfoRequest())
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await (await _first_to_end(idle)).read()
        error = error_of(raised.value)
        assert (error.reason, error.retryable) == ("CALLS_EXHAUSTED", True)


async def _first_to_end(calls: list[grpc.aio.StreamStreamCall]) -> grpc.aio.StreamStreamCall:
    ends = {asyncio.ensure_future(call.code()): call for call in calls}
    done, others = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for other in others:
        other.cancel()
    return ends[done.pop()]


async def test_a_connection_has_a_bounded_number_of_reflections(monkeypatch: pytest.MonkeyPatch):
    async with serving() as at:
        reflect = reflection_pb2_grpc.ServerReflectionStub(at.channel).ServerReflectionInfo
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        held = [reflect() for _ in range(size_interceptor.MAX_REFLECTIONS_OF_CONNECTION)]
        for call in held:
            await call.write(request)
            assert (await call.read()).list_services_response.service
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await reflect().read()
        assert error_of(raised.value).reason == "REFLECTIONS_EXHAUSTED"
        held.pop().cancel()
        while at.server.messages.reflections.in_use == size_interceptor.MAX_REFLECTIONS_OF_CONNECTION:  # noqa: ASYNC110
            await asyncio.sleep(0)
        monkeypatch.setattr(size_interceptor, "MESSAGE_TIMEOUT_S", 0.05)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await reflect().read()
        assert error_of(raised.value).reason == "MESSAGE_STALLED"


async def test_reflections_of_all_connections_together_are_bounded():
    async with serving() as at, connection(at, "greedy") as greedy:
        at.server.messages.reflections.limit = 2
        idle = [reflection_pb2_grpc.ServerReflectionStub(greedy).ServerReflectionInfo() for _ in range(2)]
        while at.server.messages.reflections.in_use < 2:  # noqa: ASYNC110 - what the server counts
            await asyncio.sleep(0)
        call = reflection_pb2_grpc.ServerReflectionStub(at.channel).ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        assert (await call.read()).list_services_response.service
        assert await (await _first_to_end(idle)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_calls_beyond_a_short_queue_are_refused_before_python_sees_them():
    """The event loop does not run meanwhile, so that calls stay in the queue of gRPC's core."""
    async with serving() as at:
        host, _, port = at.address.rpartition(":")
        head = call_head(b"/mynah.v1.Speech/GetServerInfo")
        calls = b"".join(frame(1, 4, 2 * number + 1, head) for number in range(70))
        with ExitStack() as opened:
            sockets = [opened.enter_context(socket.create_connection((host, int(port)), 30)) for _ in range(6)]
            for each in sockets:
                each.sendall(PREFACE + calls)
            refused = 0
            while refused < 420 - 2 * (64 + 2 * 4 + 4) - 1:
                ready = select.select(sockets, [], [], 20)[0]
                assert ready, "too few calls were refused"
                for each in ready:
                    data = each.recv(65_536)
                    assert data, "no call was refused"
                    refused += data.count(b"grpc-status")
            while True:
                with suppress(mynah.Unavailable):  # until the queue has room
                    assert await at.client.info()
                    return
