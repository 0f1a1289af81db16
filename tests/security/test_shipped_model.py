"""The shipped model under attack: clients that do not read, and hardly any files that may be open.

A seed and a schedule name the bytes of a stream, so a stream that was not disturbed has the bytes that it has alone.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import mynah
from bench.attacks import pair, unfinished
from tests.clips import speech, wav_bytes
from tests.faults.servers import REAL, Server, error_of, server
from tests.service.telemetry.scraping import scrape

MAX_FILES, HEADS = 300, 400
TEXT = "All of this is well."
LONG = "This is said to someone who does not listen to it. " * 6
LOUD = {"sample_rate_hz": 48_000}
_LIMITS = ("sh", "-c", f'ulimit -n {MAX_FILES}; exec "$@"', "sh")
_FLAGS = ("--model", "tiny", "--voices-dir", "memory", "--stall-timeout-s", "2", "--send-queue-events", "2")
# the kernel's own limit on unread data is longer than a busy machine needs
_PATIENT_KERNEL = "import service.http.server; service.http.server._UNSENT_MARGIN_S = 250.0"
_SMALL_BYTES = 4096  # what a client's socket holds


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def at(runner: asyncio.Runner) -> Iterator[Server]:
    running = server(*_FLAGS, before=_PATIENT_KERNEL, within=_LIMITS, program=REAL)
    yield runner.run(running.__aenter__())
    runner.run(running.__aexit__(None, None, None))


async def spoken(at: Server) -> bytes:
    sampling = mynah.Sampling(seed=3)
    async with mynah.Client(at.address) as client:
        chunks = client.synthesize(TEXT, sampling=sampling, schedule="balanced")
        return b"".join([chunk.data async for chunk in chunks])


async def stalled(at: Server) -> float:
    return (await scrape(at.admin))("mynah_errors_total", reason="READER_STALLED")


def small_socket(at: Server) -> socket.socket:
    """A connection to the HTTP port that takes hardly more than is read."""
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BYTES)
    small.connect(pair(at.http))
    return small


async def of_grpc(at: Server, all_stalled: asyncio.Event) -> str:
    async with mynah.Client(at.address) as client, client.stream(audio_format="pcm_f32le", **LOUD) as stream:
        await stream.send(LONG)
        await stream.end()
        await all_stalled.wait()
        with pytest.raises(mynah.TimedOut) as raised:
            async for _ in stream:
                pass
    return raised.value.reason


async def of_a_websocket(at: Server, all_stalled: asyncio.Event) -> str:
    url = f"ws://{at.http}/v1/stream"
    async with connect(url, sock=small_socket(at), proxy=None, compression=None, max_queue=1, max_size=None) as browser:
        settings = {"audio_format": "AUDIO_FORMAT_PCM_F32LE"} | LOUD
        for message in ({"open": {"settings": settings}}, {"text": {"content": LONG}}, {"end": {}}):
            await browser.send(json.dumps(message))
        await all_stalled.wait()
        last: str | bytes = ""
        with suppress(ConnectionClosed):
            while True:
                last = await browser.recv()
    assert (browser.close_code, browser.close_reason) == (4408, "READER_STALLED")
    return str(json.loads(last)["error"]["code"])


async def of_events(at: Server, all_stalled: asyncio.Event) -> str:
    body = json.dumps({"input": LONG, "response_format": "pcm_f32le", "stream_format": "sse"} | LOUD).encode()
    head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: {at.http}\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    reader, writer = await asyncio.open_connection(sock=small_socket(at), limit=_SMALL_BYTES)
    writer.write(head.encode() + body)
    await all_stalled.wait()
    answer = await reader.read()
    writer.close()
    last = answer[answer.rindex(b"data: ") + len("data: ") :].partition(b"\n")[0]
    return str(json.loads(last)["error"]["code"])


def test_slow_readers_lose_their_streams_and_disturb_no_other(runner: asyncio.Runner, at: Server):
    async def attack() -> tuple[bytes, bytes, list[str]]:
        alone, before = await spoken(at), await stalled(at)
        all_stalled = asyncio.Event()
        slow = [asyncio.create_task(reader(at, all_stalled)) for reader in (of_grpc, of_a_websocket, of_events)]
        beside = await spoken(at)
        while await stalled(at) < before + len(slow):  # noqa: ASYNC110 - what the server counts
            await asyncio.sleep(0.05)
        all_stalled.set()
        reasons = await asyncio.gather(*slow)
        assert await spoken(at) == alone
        return alone, beside, reasons

    alone, beside, reasons = runner.run(attack())
    assert len(alone) > 24_000
    assert beside == alone
    assert reasons == ["READER_STALLED"] * 3
    assert "Traceback" not in at.log.read_text()


def test_with_few_descriptors_it_speaks_and_clones_while_strangers_hold_connections(runner: asyncio.Runner, at: Server):
    """The heads are more than the process may have files; making a voice needs some of its own for its sandbox."""

    async def attack() -> tuple[bytes, bytes, str]:
        alone = await spoken(at)
        holding = unfinished(pair(at.http), HEADS)
        await asyncio.to_thread(holding.__enter__)
        try:
            beside = await spoken(at)
            async with mynah.Client(at.address) as client:
                voice = await client.voices.create("Anna", wav_bytes(*speech(6.0)), consent=True)
                cloned = [chunk async for chunk in client.synthesize(TEXT, voice=voice.voice_id)]
                assert cloned
                await client.voices.delete(voice.voice_id)
            with closing(small_socket(at)) as late:
                late.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                answer = await asyncio.to_thread(late.recv, 15)
        finally:
            holding.__exit__(None, None, None)
        return alone, beside, answer.decode()

    alone, beside, answer = runner.run(attack())
    assert beside == alone
    assert answer == "HTTP/1.1 200 OK"
    assert "Traceback" not in at.log.read_text()


def test_texts_that_no_model_can_speak_make_no_noise(runner: asyncio.Runner, at: Server):
    async def attack() -> list[str]:
        async with mynah.Client(at.address) as client:
            texts = ("\U0001f600", "?!", "...", "\u0645\u0631\u062d\u0628\u0627 \u0628\u0643")
            return [(await error_of(client, text)).reason for text in texts]

    assert set(runner.run(attack())) == {"TEXT_EMPTY"}
