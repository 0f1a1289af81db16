"""`mynah-serve --http-listen` as a process: curl, a stream that outlives the signal, and TLS."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import ssl
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect

from service.audio.formats import AudioFormat, AudioSettings
from tests.service.access.tls_files import Authority
from tests.service.audio.decoding import decode
from tests.service.http.clients import HELLO, SPEECH, http_serving
from tests.service.test_process import line, listening, process

HTTP = ("--http-listen", "127.0.0.1:0")


async def http_address(running: asyncio.subprocess.Process) -> str:
    await listening(running)
    output = await line(running)
    address = re.fullmatch(r"mynah-serve: HTTP at (http://127\.0\.0\.1:[1-9]\d*)\n", output)
    assert address is not None, output
    assert "serving after" in await line(running)
    return address[1]


async def test_curl_receives_the_speech(tmp_path: Path):
    output = tmp_path / "out.opus"
    body = json.dumps(HELLO | {"response_format": "opus"})
    async with process("--max-streams", "3", *HTTP) as running:
        url = await http_address(running) + SPEECH
        command = ["curl", "-sS", "--fail", url, "-H", "Content-Type: application/json", "-d", body, "-o", str(output)]
        curl = await asyncio.create_subprocess_exec(*command)
        assert await curl.wait() == 0
        running.send_signal(signal.SIGTERM)
        assert await running.wait() == 0
    assert len(decode(output.read_bytes(), AudioSettings(AudioFormat.OGG_OPUS))) / 24_000 > 0.48


async def test_after_a_signal_open_responses_finish_and_new_requests_are_rejected():
    text = "This is still being said after the signal has come, and it is said to its end."
    async with process("--max-streams", "3", "--grace-s", "20", *HTTP) as running:
        async with httpx.AsyncClient(base_url=await http_address(running)) as client:
            request = HELLO | {"input": text, "response_format": "pcm"}
            async with client.stream("POST", SPEECH, json=request) as answer:
                pieces = answer.aiter_raw()
                received_bytes = len(await anext(pieces))
                running.send_signal(signal.SIGTERM)
                while (ready := await client.get("/readyz")).status_code == 200:
                    pass
                assert ready.json()["error"]["code"] == "DRAINING"
                refused = await client.post(SPEECH, json=HELLO)
                assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
                received_bytes += sum([len(piece) async for piece in pieces])
            assert received_bytes == 2 * len(text) * 960
        assert await running.wait() == 0


async def test_at_the_end_an_unfinished_request_gets_an_error_and_the_log_stays_clean():
    head = f"POST {SPEECH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
    async with process("--max-streams", "3", "--grace-s", "0", *HTTP) as running:
        host, _, port = (await http_address(running)).removeprefix("http://").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" + head.encode())
        assert b"alive" in await reader.readuntil(b"}")  # the server has read the second head, too
        running.send_signal(signal.SIGTERM)
        answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b'"code": "DRAINING"' in answer
        assert running.stderr is not None
        log = (await running.stderr.read()).decode()
        assert "Traceback" not in log, log
        assert "Exception in ASGI" not in log, log
        assert await running.wait() == 0


async def test_http_uses_the_servers_certificate(tmp_path: Path):
    authority = Authority(tmp_path)
    own = authority.issue()
    trusting = ssl.create_default_context(cafile=str(authority.certificate))
    async with (
        http_serving(tls_certificate=own.certificate, tls_key=own.key) as (at, plain),
        httpx.AsyncClient(base_url=f"https://{at.http}", verify=trusting) as client,
        connect(f"wss://{at.http}/v1/stream", ssl=trusting, proxy=None) as socket,
    ):
        assert (await client.post(SPEECH, json=HELLO)).status_code == 200
        await socket.send('{"open": {}}')
        assert "opened" in json.loads(await socket.recv())
        with pytest.raises(httpx.TransportError):
            await plain.get("/healthz")
