"""A server on the fake engine behind a real socket, and the client that speaks to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio
import pytest

import mynah
from engines.api import NULL_OBSERVER, Observer
from engines.fake import FakeEngine, Script
from mynah.client.errors import MynahError, from_status
from mynah.client.transport import BidiStream
from mynah.v1 import speech_pb2, speech_pb2_grpc, voices_pb2_grpc
from service.config import build_config
from service.models import Models
from service.server import Server

REFERENCE = b"RIFF" + bytes(5000)  # enough for the fake engine


@dataclass
class Serving:
    """One server from all sides."""

    engine: FakeEngine
    server: Server
    address: str
    client: mynah.Client
    speech: speech_pb2_grpc.SpeechStub
    voices: voices_pb2_grpc.VoicesStub
    channel: grpc.aio.Channel
    http: str | None  # HOST:PORT, where it was asked for

    @property
    def at_rest(self) -> bool:
        admission = self.server.admission
        return self.engine.at_rest and admission.open_streams == admission.uploads.in_use == 0

    async def check_serves(self) -> None:
        """The server speaks, and frees everything afterwards."""
        samples = sum([chunk.samples async for chunk in self.client.synthesize("All is well.")])
        assert samples == 12 * 960
        await self.settled()

    async def settled(self) -> None:
        """Wait until all calls have ended; then everything must be free."""
        async with asyncio.timeout(5):
            await self.server.admission.wait_idle()
        assert self.at_rest


@asynccontextmanager
async def serving(
    script: Script | None = None,
    *,
    max_streams: int = 4,
    warm: bool = True,
    default_voice: bool = True,
    observer: Observer = NULL_OBSERVER,
    http: bool = False,
    others: Sequence[FakeEngine] = (),
    **config: Any,
) -> AsyncIterator[Serving]:
    """A server on a free port, with HTTP on another; at the end it is stopped and must have freed everything.

    others: engines of more models, behind the first one
    """
    if http:
        config["http_listen"] = "127.0.0.1:0"
    engine = FakeEngine(script, max_streams=max_streams, default_voice=default_voice, observer=observer)
    server = Server(Models([engine, *others]), build_config(**{"listen": "127.0.0.1:0", **config}))
    address = await server.start()
    at_http = await server.start_http()
    if warm:
        await server.warm_up()
    try:
        async with mynah.Client(address) as client, grpc.aio.insecure_channel(address) as channel:
            speech, voices = speech_pb2_grpc.SpeechStub(channel), voices_pb2_grpc.VoicesStub(channel)
            yield Serving(engine, server, address, client, speech, voices, channel, at_http)
    finally:
        await server.stop(0)
    for each in (engine, *others):
        assert each.at_rest
        assert each.closed


Request = speech_pb2.StreamSpeechRequest


def opening(**settings: Any) -> Request:
    sampling = speech_pb2.Sampling(**settings.pop("sampling", {}))
    wire = speech_pb2.SpeechSettings(sampling=sampling, **settings)
    return Request(open=speech_pb2.OpenStream(settings=wire))


def text(content: str) -> Request:
    return Request(text=speech_pb2.TextFragment(content=content))


def flush(flush_id: int) -> Request:
    return Request(flush=speech_pb2.Flush(flush_id=flush_id))


CANCEL = Request(cancel=speech_pb2.Cancel())


async def converse(at: Serving, *requests: Request) -> list[speech_pb2.StreamSpeechResponse]:
    """Send everything, half-close, read to the end. Raises the client's error for a status that is not OK."""

    call = BidiStream(at.speech.StreamSpeech())
    sending = asyncio.create_task(_send_all(call, requests))
    answers = []
    try:
        while (answer := await call.read()) is not None:
            answers.append(answer)
    finally:
        await asyncio.gather(sending, return_exceptions=True)
        await call.close()
    return answers


async def _send_all(call: BidiStream, requests: tuple[Request, ...]) -> None:
    for request in requests:
        await call.write(request)
    await call.done_writing()


def error_of(error: grpc.aio.AioRpcError) -> MynahError:
    trailing = error.trailing_metadata()
    assert trailing is not None
    return from_status(error.code().name, error.details() or "", [(str(key), value) for key, value in trailing])


async def refused(at: Serving, *requests: Request) -> MynahError:
    """The error that these requests end with; afterwards the server must serve and have freed everything."""
    with pytest.raises(MynahError) as raised:
        await converse(at, *requests)
    await at.check_serves()
    return raised.value
