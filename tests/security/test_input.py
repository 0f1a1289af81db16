"""What clients send is read in bounded turns, before and after they are let in."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import mynah
from engines.errors import InvalidInput
from mynah.v1 import speech_pb2, voices_pb2
from service.access.keys import ApiKey, digest, write_keys
from service.http.frames import parse_text
from service.http.requests import bounded_json
from tests.security.attacked import Attacked, attacked
from tests.service.http.clients import http_serving
from tests.service.serving import serving

_MAX_GROWTH_BYTES = 150e6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("attacked")


async def giant_frames(at: Attacked) -> None:
    """Frames of JSON that would become half a million lists each."""
    frame = "[" + "[]," * 1_300_000 + "[]]"
    async with connect(f"ws://{at.server.http}/v1/stream", proxy=None, compression=None) as socket:
        with suppress(ConnectionClosed):
            await socket.send(frame)
            await socket.recv()


async def allowed_frames(at: Attacked) -> None:
    """The worst that fits into the longest frame that is read."""
    for frame in ("[" + "[]," * 90_000 + "[]]", '{"text":{"content":"' + "\\n\\na" * 4_000 + '"}}'):
        async with connect(f"ws://{at.server.http}/v1/stream", proxy=None, compression=None) as socket:
            with suppress(ConnectionClosed):
                await socket.send('{"open":{}}')
                for _ in range(10):
                    await socket.send(frame)
                while True:
                    await socket.recv()


async def tiny_chunks(at: Attacked) -> None:
    """A body of chunks of one byte, to a path that nobody has."""
    reader, writer = await asyncio.open_connection(*at.http)
    writer.write(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    with suppress(ConnectionError):
        writer.write(b"1\r\na\r\n" * 100_000)
        await writer.drain()
        await reader.read()
    writer.close()


async def pings(at: Attacked) -> None:
    """WebSocket pings whose pongs nobody reads."""
    reader, writer = await asyncio.open_connection(*at.http, limit=1024)
    writer.write(
        b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    with suppress(ConnectionError):
        writer.write((b"\x89\x80" + struct.pack("!I", 0)) * 100_000)
        await writer.drain()
    writer.close()


async def flushes(at: Attacked) -> None:
    async with at.client.stream() as stream:
        with suppress(mynah.MynahError):
            for _ in range(3000):
                await stream.flush()


async def cancels(at: Attacked) -> None:
    async with at.client.stream() as stream:
        for _ in range(200):
            await stream.send("This is never said to its end.")
            await stream.cancel()


async def lists(at: Attacked) -> None:
    for _ in range(100):
        await at.client.voices.list()


async def long_texts(at: Attacked) -> None:
    for _ in range(5):
        with suppress(mynah.MynahError):
            async for _ in at.client.synthesize("long " * 800_000):
                pass


ATTACKS = [giant_frames, allowed_frames, tiny_chunks, pings, flushes, cancels, lists, long_texts]


async def test_no_input_holds_up_the_event_loop(tmp_path: Path):
    async with attacked(tmp_path) as at:
        before = await at.metric("process_resident_memory_bytes")
        for attack in ATTACKS:
            await asyncio.gather(*(attack(at) for _ in range(4)))
            print(attack.__name__, await at.metric("bench_longest_pass_cpu_s"))
        assert await at.metric("process_resident_memory_bytes") - before < _MAX_GROWTH_BYTES
    assert len((tmp_path / "server.log").read_bytes()) < 100_000


Reading = Callable[[str], object]


@pytest.mark.parametrize("read", [bounded_json, parse_text])
@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "[" + "[]," * 50_000 + "[]]", '{"a":' * 20_000, '""' * 50_000, "1," * 50_000],
)
def test_json_of_many_values_is_refused_before_it_is_parsed(read: Reading, text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(json, "loads", lambda _: pytest.fail("it was parsed"))
    with pytest.raises((ValueError, InvalidInput)):
        read(text)


@pytest.mark.parametrize("value", ["a" * 20_000, '"\\' * 5000, "\U0001f600" * 20_000, "", "[{,:"])
def test_long_strings_are_parsed(value: str):
    assert bounded_json(json.dumps({"input": value, "voice": {"id": "x"}}))["input"] == value
    request = parse_text(json.dumps({"text": {"content": value}}, ensure_ascii=False))
    assert isinstance(request, speech_pb2.StreamSpeechRequest)
    assert request.text.content == value


async def test_a_strangers_body_is_not_read(tmp_path: Path):
    keys = tmp_path / "keys.json"
    write_keys(keys, [ApiKey("anna", digest("secret"))])
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(500):
            sent += 65_536
            yield b"x" * 65_536

    async with http_serving(api_keys=keys) as (_, client):
        with suppress(Exception):  # the connection may end while the body is being sent
            answer = await client.post("/v1/voices", content=body(), headers={"content-type": "multipart/form-data"})
            assert answer.status_code == 401
    assert sent < 16 * 1024 * 1024


@pytest.mark.parametrize("fragment", [b"", b"a"], ids=["empty", "short"])
async def test_a_message_has_a_bounded_number_of_fragments(fragment: bytes):
    async def fragments() -> AsyncIterator[bytes]:
        for _ in range(1100):
            yield fragment

    async with http_serving() as (at, _), connect(f"ws://{at.http}/v1/stream", proxy=None, compression=None) as socket:
        with suppress(ConnectionClosed):
            await socket.send(fragments())
            await socket.recv()
        assert socket.close_code == 1008
        await at.check_serves()


@pytest.mark.parametrize(
    "method", ["Speech/Synthesize", "Voices/GetVoice", "Speech/GetServerInfo", "Voices/ListVoices"]
)
async def test_messages_are_refused_with_a_type(method: str):
    async with serving() as at:
        for data, reason in ((b"\xff\xff\xff", "MESSAGE_INVALID"), (b"\x7a" + bytes(3_000_000), "MESSAGE_TOO_LARGE")):
            with pytest.raises(mynah.MynahError) as raised:
                await _call(at.channel.unary_unary(f"/mynah.v1.{method}")(data))
            assert raised.value.reason == reason
        await at.check_serves()


async def _call(call: Awaitable[bytes]) -> bytes:
    import grpc.aio

    from tests.service.serving import error_of

    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise error_of(error) from None


async def test_an_upload_s_part_may_be_long():
    """Messages with audio keep the limit that they had."""
    async with serving() as at:
        parts = [
            voices_pb2.CreateVoiceRequest(metadata=voices_pb2.NewVoice(name="Anna", consent=True)),
            voices_pb2.CreateVoiceRequest(audio_chunk=b"RIFF" + bytes(3_000_000)),
        ]
        assert (await at.voices.CreateVoice(iter(parts))).voice.name == "Anna"


async def test_a_body_that_drips_does_not_hold_an_upload_s_slot():
    async with http_serving(stall_timeout_s=0.2) as (at, _):
        reader, writer = await asyncio.open_connection(*at.http.rsplit(":", 1))
        head = b"POST /v1/voices HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        writer.write(head + b"Content-Length: 1000000\r\n\r\n--x\r\n")
        answer = asyncio.create_task(reader.read())
        with suppress(ConnectionError):
            while not answer.done():
                writer.write(b"a")
                await asyncio.sleep(0.02)
        assert (await answer).startswith(b"HTTP/1.1 408 ")
        writer.close()
