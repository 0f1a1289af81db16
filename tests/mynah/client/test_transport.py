"""The bidirectional call below a stream, on a server that starts to read late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc.aio
import pytest

import mynah
from mynah.client.transport import BidiStream
from mynah.v1 import speech_pb2, speech_pb2_grpc

PIECE = "x" * 10_000  # several fill gRPC's window


class LateReader(speech_pb2_grpc.SpeechServicer):
    """Reads nothing until `listen` is set; then records all messages, sends three and ends with an error."""

    def __init__(self) -> None:
        self.listen = asyncio.Event()
        self.received: list[str] = []

    async def StreamSpeech(self, requests: AsyncIterator[Any], context: Any) -> None:
        await self.listen.wait()
        async for request in requests:
            self.received.append(request.text.content)
            if request.text.content == "end":
                break
        for number in range(3):
            await context.write(speech_pb2.StreamSpeechResponse(flushed=speech_pb2.Flushed(flush_id=number)))
        await context.abort(grpc.StatusCode.NOT_FOUND, "the real reason")


@asynccontextmanager
async def calling() -> AsyncIterator[tuple[LateReader, BidiStream]]:
    reader, server = LateReader(), grpc.aio.server()
    speech_pb2_grpc.add_SpeechServicer_to_server(reader, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = BidiStream(speech_pb2_grpc.SpeechStub(channel).StreamSpeech())
        yield reader, call
        await call.close()
    await server.stop(0)


def message(content: str) -> speech_pb2.StreamSpeechRequest:
    return speech_pb2.StreamSpeechRequest(text=speech_pb2.TextFragment(content=content))


async def test_writes_whose_tasks_are_cancelled_are_finished_and_in_order():
    async with calling() as (reader, call):
        sent = []
        for number in range(40):
            sent.append(f"{number}{PIECE}")
            writing = asyncio.create_task(call.write(message(sent[-1])))
            await asyncio.sleep(0)
            if not writing.done():
                writing.cancel()
                with suppress(asyncio.CancelledError):
                    await writing
        reader.listen.set()
        await call.write(message("end"))
        with pytest.raises(mynah.NotFound):
            await read_forever(call)
        assert reader.received == [*sent, "end"]


async def test_a_writer_gets_the_reason_and_a_reader_still_gets_everything_before_it():
    async with calling() as (reader, call):
        reader.listen.set()
        await call.write(message("end"))
        with pytest.raises(mynah.NotFound, match="the real reason"):
            await write_forever(call)
        answers = [await call.read() for _ in range(3)]
        assert [answer.flushed.flush_id for answer in answers if answer] == [0, 1, 2]
        for _ in range(2):
            with pytest.raises(mynah.NotFound, match="the real reason"):
                await call.read()


async def test_a_reader_and_a_writer_both_get_the_reason():
    async with calling() as (reader, call):
        reader.listen.set()
        reading = asyncio.create_task(read_forever(call))
        await call.write(message("end"))
        with pytest.raises(mynah.NotFound, match="the real reason"):
            await write_forever(call)
        with pytest.raises(mynah.NotFound, match="the real reason"):
            await reading


async def write_forever(call: BidiStream) -> None:
    while True:
        await call.write(message("more"))


async def read_forever(call: BidiStream) -> None:
    while await call.read():
        pass


async def test_closing_ends_a_reader_that_waits():
    async with calling() as (_, call):
        reading = asyncio.create_task(call.read())
        await asyncio.sleep(0)
        await call.close()
        with pytest.raises(mynah.StreamCancelled):
            await reading
        await call.close()


async def test_closing_ends_a_writer_that_waits_for_a_connection():
    connected = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as silent, asyncio.timeout(60):
        port = silent.sockets[0].getsockname()[1]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = BidiStream(speech_pb2_grpc.SpeechStub(channel).StreamSpeech())
            writing = asyncio.create_task(call.write(message("Hello.")))
            await connected.wait()
            await call.close()
            with pytest.raises(mynah.StreamCancelled):
                await writing
