"""What clients send is read in bounded turns, before and after they are let in."""

from __future__ import annotations

import asyncio
import json
import logging
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import mynah
from bench.attacks import CLIENTS, INPUTS
from engines.errors import InvalidInput
from mynah.v1 import speech_pb2, voices_pb2
from service.access.keys import ApiKey, digest, write_keys
from service.http import connection
from service.http.frames import parse_text
from service.http.requests import Body, bounded_json, read_json_object
from tests.security.attacked import attacked
from tests.security.fuzz_corpus import HANDSHAKE
from tests.service.http.clients import http_serving
from tests.service.serving import serving

_MAX_GROWTH_BYTES = 150e6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("attacked")


async def test_no_input_holds_up_the_event_loop(tmp_path: Path):
    async with attacked(tmp_path) as at:
        before = await at.metric("process_resident_memory_bytes")
        for attack in INPUTS:
            began_s = monotonic()
            await asyncio.gather(*(attack(at.target) for _ in range(CLIENTS)))
            await at.gaps.check(began_s, attack.__name__)
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


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"{'a': 1}", "is not JSON;"),
        (b'{"a": "caf\xe9"}', "not text in UTF-8"),
        (b'{"a": ' * 5000 + b"1" + b"}" * 5000, "nested too deeply"),
        (b'{"a": ' + b"1" * 5000 + b"}", "too many digits"),
        (b'{"a": [' + b'"",' * 7000 + b'""]}', "more than 6000 names and texts"),
        (b'{"a": [' + b"1," * 20_000 + b"1]}", "more than 32768 characters beside its texts"),
        (b"[]", "another JSON value"),
    ],
)
async def test_a_refused_body_is_told_why(body: bytes, problem: str):
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    scope = {"headers": [(b"content-type", b"application/json")]}
    with pytest.raises(InvalidInput, match=problem):
        await read_json_object(scope, Body(scope, receive, 10**6, 1.0))
    if problem != "not text in UTF-8":
        with pytest.raises(InvalidInput, match=problem.rstrip(";")):
            parse_text(body.decode())


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [("content-length", "99999999999", 413), ("content-encoding", "gzip", 415)],
)
@pytest.mark.parametrize("path", ["/v1/audio/speech", "/dev/captioned_speech", "/v1/voices"])
async def test_a_body_is_refused_by_its_head(path: str, header: str, value: str, status: int):
    form = "multipart/form-data; boundary=x" if path == "/v1/voices" else "application/json"
    head = {"host": "localhost", "content-length": "10", "content-type": form} | {header: value}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {text}" for name, text in head.items()), "", ""]
    async with http_serving(stall_timeout_s=60) as (at, _):
        reader, writer = await asyncio.open_connection(*at.http.rsplit(":", 1))
        writer.write("\r\n".join(lines).encode())
        assert (await reader.readline()).startswith(f"HTTP/1.1 {status} ".encode())
        writer.close()


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


async def test_what_comes_behind_too_many_fragments_is_not_read(caplog: pytest.LogCaptureFixture):
    """In one piece: a message in too many fragments, and one whose text is no UTF-8."""
    mask, fragments = bytes(4), 1030
    pieces = [b"\x01\x80" + mask, *[b"\x00\x80" + mask] * fragments, b"\x80\x80" + mask, b"\x81\x81" + mask + b"\xff"]
    async with http_serving() as (at, _):
        host, _, port = at.http.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(HANDSHAKE.replace(b"localhost", at.http.encode()))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"".join(pieces))
        assert b"\x03\xf0" in await reader.read(), "closed by code 1008"
        writer.close()
        await at.check_serves()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


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


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("header", [b"Sec-WebSocket-Protocol", b"Upgrade", b"Connection"])
async def test_a_handshake_with_other_bytes_than_ascii_is_refused(header: bytes, method: bytes):
    async with http_serving() as (at, _):
        reader, writer = await asyncio.open_connection(*at.http.rsplit(":", 1))
        head = method + b" /v1/stream HTTP/1.1\r\nHost: localhost\r\n" + header + b": x\xff\r\n"
        head += b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        writer.write(head + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 400")
        assert (b"the headers of a WebSocket's handshake must be ASCII" in answer) == (method == b"GET")
        writer.close()


async def test_a_body_that_drips_does_not_hold_an_upload_s_slot():
    async with http_serving(stall_timeout_s=0.2) as (at, _):
        reader, writer = await asyncio.open_connection(*at.http.rsplit(":", 1))
        head = b"POST /v1/voices HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        writer.write(head + b"Content-Length: 1000000\r\n\r\n--x\r\n")
        dripping = asyncio.create_task(_drip(writer))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in head
        assert json.loads(await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r")[0])))
        writer.write(b"a" * 1000)  # the connection does not end with its answer, which a reset could discard
        await writer.drain()
        dripping.cancel()
        writer.close()


async def _drip(writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while True:
            writer.write(b"a")
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("rest", [b"a0\r\n\r\n\na", b"a\r\nx"])
@pytest.mark.parametrize("head", [b"HEAD /readyz", b"GET /v1/models", b"POST /v1/voices", b"POST /v1/audio/speech"])
async def test_a_body_that_is_not_http_ends_its_request_without_an_error(
    head: bytes, rest: bytes, caplog: pytest.LogCaptureFixture
):
    """It was answered twice, which raised in the request's task and in its connection."""
    async with http_serving() as (at, client):
        for pause in (False, True):  # before and after the request is answered
            reader, writer = await asyncio.open_connection(*at.http.rsplit(":", 1), limit=100_000)
            head_lines = b"Host: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
            writer.write(head + b" HTTP/1.1\r\n" + head_lines + b"Transfer-Encoding: chunked\r\n\r\n1\r\n")
            if pause:
                await client.get("/readyz")
            writer.write(rest)
            answers = await reader.read()
            assert answers.count(b"HTTP/1.1 ") <= 1
            writer.close()
        assert (await client.get("/readyz")).status_code == 200
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]


async def test_nothing_is_read_after_a_request_with_two_lengths():
    """A proxy before the server may have taken what follows for a part of the body."""
    async with http_serving() as (at, _):
        reader, writer = await asyncio.open_connection(*at.http.rsplit(":", 1))
        lengths = b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        writer.write(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\n" + lengths)
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.read()).count(b"HTTP/1.1 ") == 1
        writer.close()


async def test_connect_is_refused_before_any_handler():
    """An answer of success would make the connection a tunnel, in which nothing can be sent."""

    async def answers_all(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    sent: list[dict[str, Any]] = []

    async def keep(message: dict[str, Any]) -> None:
        sent.append(message)

    await connection._without_tunnels(answers_all)({"type": "http", "method": "CONNECT"}, None, keep)
    assert sent[0]["status"] == 405
    async with http_serving() as (at, _):
        reader, writer = await asyncio.open_connection(*at.http.rsplit(":", 1))
        writer.write(b"CONNECT /readyz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 405 ")
        writer.close()


async def test_an_upload_is_kept_in_memory(monkeypatch: pytest.MonkeyPatch):
    """It needs no disk, which may be full, and none of the threads that others wait for."""
    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", lambda _: pytest.fail("it was written to a disk"))
    async with http_serving() as (_, client):
        form = {"name": "Anna", "consent": "true"}
        answer = await client.post("/v1/voices", data=form, files={"audio": b"RIFF" + bytes(3_000_000)})
        assert answer.status_code == 201
