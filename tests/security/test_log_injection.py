"""What strangers send to a server process with keys: its log has one clean line per event, and stays small."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from pathlib import Path
from time import monotonic
from urllib.parse import quote

import grpc.aio
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from bench.attacks import PREFACE, call_head, frame
from bench.scripted_server import Load, ScriptedServer, scripted_server
from mynah.v1 import speech_pb2, speech_pb2_grpc
from service.access.keys import ApiKey, digest, write_keys
from tests.security.healthy import Access, healthy_stream
from tests.service.access.tls_files import Authority
from tests.service.http.clients import SPEECH

FORGED = "x\n2026-01-01T00:00:00.000Z INFO mynah.service forged\x1b[2J\u202e"
SECRET = "xylophone"
_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ [\w.]+ |    ")
_MAX_LOG_BYTES = 400_000  # of a flood; the bound is 1 MB a minute


async def test_nothing_that_was_sent_forges_a_line_or_shows_a_key(tmp_path: Path):
    keys, log = tmp_path / "keys.json", tmp_path / "server.log"
    write_keys(keys, [ApiKey("anna", digest("secret"))])
    flags = ("--http-listen", "127.0.0.1:0", "--api-keys", str(keys), "--max-streams", "4")
    async with (
        scripted_server(Load(), log, *flags) as server,
        healthy_stream(server.address, server.pid, tmp_path, Access(api_key="secret")) as gaps,
    ):
        began_s = monotonic()
        await asyncio.gather(*(http(server, request) for request in requests()))
        await sockets(server)
        for _ in range(150):
            await asyncio.gather(*(grpc_calls(server.address) for _ in range(2)))
        await asyncio.gather(*(http(server, b"\xff\xff nonsense\r\n\r\n") for _ in range(300)))
        await gaps.check(began_s, "forged lines")
    written = log.read_bytes()
    assert len(written) < _MAX_LOG_BYTES
    text = written.decode("ascii")
    assert SECRET not in text
    assert len(text.splitlines()) > 10
    for line in text.splitlines():
        assert line.isprintable(), line
        assert _LINE.match(line), line
        assert not line.endswith("forged"), line


def requests() -> list[bytes]:
    """HTTP requests of a key's owner and of strangers, with a forged line wherever text can stand."""
    body = json.dumps({FORGED: 1}).encode()
    good = b"authorization: Bearer secret\r\n"
    sent = []
    for who in (good, b"authorization: Bearer " + SECRET.encode() + b"\xff\r\n"):
        head = b"POST " + SPEECH.encode() + b" HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n" + who
        sent.append(head + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        for path in (f"/v1/voices/{quote(FORGED)}", f"/v1/models/{quote(FORGED)}", f"/v1/voices?{quote(FORGED)}=1"):
            sent.append(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n".encode() + who + b"\r\n")
    return sent


async def http(server: ScriptedServer, request: bytes) -> None:
    host, _, port = server.http.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    with suppress(ConnectionError):
        writer.write(request)
        await reader.read()
    writer.close()


async def sockets(server: ScriptedServer) -> None:
    """WebSockets: a field's name, and a subprotocol that is not UTF-8."""
    url, key = f"ws://{server.http}/v1/stream", {"authorization": "Bearer secret"}
    async with connect(url, proxy=None, additional_headers=key) as socket:
        await socket.send(json.dumps({FORGED: {}}))
        with suppress(WebSocketException):
            await socket.recv()
    head = b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    head += b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    await http(server, head + b"Sec-WebSocket-Protocol: bearer." + SECRET.encode() + b"\xff\r\n\r\n")


async def grpc_calls(address: str) -> None:
    """A message that cannot be decoded, a forged name, and a key that is not UTF-8."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = speech_pb2_grpc.SpeechStub(channel)
        metadata = (("authorization", "Bearer secret"),)
        with suppress(grpc.aio.AioRpcError):
            request = speech_pb2.SynthesizeRequest(text="x", settings=speech_pb2.SpeechSettings(voice_id=FORGED))
            await stub.Synthesize(request, metadata=metadata).read()
        with suppress(grpc.aio.AioRpcError):
            await channel.unary_unary("/mynah.v1.Voices/GetVoice")(b"\xff\xff", metadata=metadata)
    await call_with_bytes(address)


async def test_what_grpc_s_core_says_is_in_the_log_bounded_and_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of failed TLS handshakes, which strangers make by speaking without TLS. They are of its level INFO."""
    monkeypatch.setenv("GRPC_VERBOSITY", "INFO")
    own, log = Authority(tmp_path).issue(), tmp_path / "server.log"
    tls = ("--tls-certificate", str(own.certificate), "--tls-key", str(own.key), "--max-streams", "4")
    async with scripted_server(Load(), log, *tls) as server:
        host, _, port = server.address.rpartition(":")
        for _ in range(300):
            reader, writer = await asyncio.open_connection(host, int(port))
            with suppress(ConnectionError):
                writer.write(b"GET / HTTP/1.1\r\nauthorization: Bearer " + SECRET.encode() + b"\xff\r\n\r\n")
                await reader.read()
            writer.close()
    text = log.read_bytes().decode("ascii")
    assert 0 < len(re.findall(r"(?m)^.* INFO grpc\.core [\w.-]+:\d+: .*[Hh]andshake.*$", text)) < 300
    assert SECRET not in text
    for line in text.splitlines():
        assert line.isprintable(), line
        assert _LINE.match(line), line
    assert len(text) < _MAX_LOG_BYTES


async def call_with_bytes(address: str) -> None:
    """A call by bare HTTP/2 frames, because gRPC's client sends no metadata that is not ASCII."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    key = (b"authorization", b"Bearer " + SECRET.encode() + b"\xff\xfe")
    headers = frame(1, 5, 1, call_head(b"/mynah.v1.Speech/GetServerInfo", key))  # ends the headers and the stream
    writer.write(PREFACE + headers)
    received = b""
    while b"grpc-status" not in received and (part := await reader.read(4096)):
        received += part
    writer.close()
    assert b"grpc-status" in received
