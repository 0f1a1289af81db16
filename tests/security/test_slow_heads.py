"""More unfinished HTTP heads than the process may have open files."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from bench.attacks import HEAD, HEADS, MAX_FILES, unfinished
from service.http.connection import HttpConnection
from tests.security.attacked import attacked
from tests.service.access.tls_files import Authority
from tests.service.http.clients import http_serving


async def test_unfinished_heads_take_neither_descriptors_nor_the_log(tmp_path: Path):
    async with attacked(tmp_path, max_files=MAX_FILES) as at:
        holding = unfinished(at.http, HEADS)
        await asyncio.to_thread(holding.__enter__)
        try:
            await at.check_serves()
        finally:
            holding.__exit__(None, None, None)
    assert len((tmp_path / "server.log").read_bytes()) < 10_000


async def test_a_head_must_be_complete_in_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(HttpConnection.__init__.__kwdefaults__, "head_timeout_s", 0.3)
    async with http_serving() as (at, client):
        for answer in await asyncio.gather(*(answer_to(at.http, sent) for sent in (b"", HEAD))):
            assert b"200 OK" not in answer
        answer = await answer_to(at.http, HEAD + b"\r\n" + HEAD)  # the second head on one connection
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.count(b"HTTP/1.1") == 1
        assert (await client.get("/readyz")).status_code == 200


async def test_the_oldest_idle_connection_makes_room_and_busy_ones_stay():
    async with http_serving() as (at, client):
        listener = at.server.http_listener
        listener.max_connections = 3
        async with client.stream("GET", "/openapi.json"):  # holds the first place
            reader, writer = await connection(at.http, HEAD)
            others = [await connection(at.http, HEAD) for _ in range(3)]
            assert await ended(reader)
            writer.close()
        assert listener.evicted >= 1
        assert listener.connections <= 3
        for _, other in others:
            other.close()


_HANDSHAKE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


async def test_a_websocket_that_sends_nothing_makes_room():
    async with http_serving() as (at, client):
        at.server.http_listener.max_connections = 2
        sockets = [await connection(at.http, _HANDSHAKE + b"\r\n") for _ in range(2)]
        for reader, _ in sockets:
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert (await client.get("/readyz")).status_code == 200
        assert await ended(sockets[0][0])
        for _, writer in sockets:
            writer.close()


@pytest.mark.parametrize(
    ("head", "problem"),
    [
        (_HANDSHAKE.replace(b"GET", b"POST"), "must be a GET request"),
        (_HANDSHAKE + b"Content-Length: 1\r\n", "body"),
        (_HANDSHAKE + b"x: y\r\n" * 200, "too many HTTP headers"),
        (_HANDSHAKE.replace(b": 13", b": 12"), "Sec-WebSocket-Version"),
        (b"GET / HTTP/1.1\r\n", "Host"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: x\r\n", "Transfer-Encoding"),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n", "Content-Length"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nx: " + b"y" * 70_000, "too long"),
        (b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n", "CONNECT"),
        (b"nonsense", "request line"),
    ],
)
async def test_what_is_not_http_is_answered_with_a_typed_error(head: bytes, problem: str):
    async with http_serving() as (at, _):
        answer = await answer_to(at.http, head + b"\r\n\r\n")
    status, _, body = answer.partition(b"\r\n\r\n")
    assert 400 <= int(status.split()[1]) < 600
    assert b"content-type: application/json" in status.lower()
    error = json.loads(body)["error"]
    assert problem in error["message"]
    assert error["code"] in {"REQUEST_INVALID", "METHOD_NOT_ALLOWED"}


async def test_a_silent_tls_client_makes_room(tmp_path: Path):
    own = Authority(tmp_path).issue()
    async with http_serving(tls_certificate=own.certificate, tls_key=own.key) as (at, _):
        at.server.http_listener.max_connections = 1
        reader, writer = await connection(at.http, b"")
        second, other = await connection(at.http, b"")
        assert await ended(reader)
        for each in (writer, other):
            each.close()
        del second


async def answer_to(address: str, sent: bytes) -> bytes:
    """What the server sent before it ended a connection on which it got only this."""
    reader, writer = await connection(address, sent)
    answer = await ended(reader)
    writer.close()
    return answer


async def connection(address: str, sent: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    return reader, writer


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What the server sent before it ended the connection; b"reset" if nothing."""
    received = bytearray()
    try:
        async with asyncio.timeout(30):
            while part := await reader.read(4096):
                received += part
    except ConnectionError:
        pass
    return bytes(received) or b"reset"
