"""Clients that stop to read and then read on: what they find behind the audio that was sent before."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from service.http import server as http_server
from service.telemetry import metrics
from tests.service.http.clients import HELLO, LONG, SPEECH, http_serving, kinds, socket
from tests.service.serving import Serving

LOUD = {"sample_rate_hz": 48_000}  # and 32 bits: what the sockets of loopback hold is soon full
CAPTIONED = "/dev/captioned_speech"


@pytest.fixture
async def at(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Serving, httpx.AsyncClient]]:
    """A server that waits for a reader for 0.2 s, and for the kernel's own limit much longer than a test takes."""
    monkeypatch.setattr(http_server, "_UNSENT_MARGIN_S", 250.0)
    async with http_serving(stall_timeout_s=0.2, send_queue_events=2) as served:
        yield served


async def given_up(at: Serving) -> None:
    """Returns once the server has begun to speak, has ended the stream and does nothing more about its connection."""
    assert at.server._http is not None
    async with asyncio.timeout(60):
        while not at.engine.made_samples:
            await at.engine.progress.wait()
        await at.server.admission.wait_idle()
        if working := at.server._http._server.server_state.tasks:
            await asyncio.wait(working)
    assert at.engine.made_samples < len(LONG) * 960


def stalled() -> float:
    return metrics.ERRORS.labels("READER_STALLED")._value.get()


@pytest.mark.parametrize("query", ["", "?audio=base64"])
async def test_a_websocket_ends_with_an_error_event_and_a_close_code(at: tuple[Serving, httpx.AsyncClient], query: str):
    before = stalled()
    async with socket(at[0], query, max_queue=1) as stream:
        await stream.send(open={"settings": {"audio_format": "AUDIO_FORMAT_PCM_F32LE"} | LOUD})
        await stream.send(text={"content": LONG})
        await given_up(at[0])
        events = await stream.receive_all()
        assert kinds(events)[-1] == "error"
        error = events[-1]["error"]
        assert (error["code"], error["allowed"]) == ("READER_STALLED", "0.2 s")
        assert error["message"] == (
            "The client has not read for 0.2 s, as long as it may; read on and retry with a new stream."
        )
        assert (stream.close_code, stream.connection.close_reason) == (4408, "READER_STALLED")
        audio = [event["audio"]["data"] for event in events if "audio" in event]
        assert all(isinstance(data, str if query else bytes) for data in audio), "no event is without its data"
        samples = [int(event["audio"]["offset_samples"]) for event in events if "audio" in event]
        assert samples == sorted(samples)
    assert stalled() == before + 1
    await at[0].check_serves()


@pytest.mark.parametrize("path", [SPEECH, CAPTIONED])
async def test_a_response_of_events_ends_with_the_error(at: tuple[Serving, httpx.AsyncClient], path: str):
    before = stalled()
    request = HELLO | {"input": LONG, "response_format": "pcm_f32le"} | LOUD
    request |= {"stream_format": "sse"} if path == SPEECH else {"return_timestamps": False}
    async with at[1].stream("POST", path, json=request) as answer:
        await given_up(at[0])
        lines = [line for line in (await answer.aread()).decode().splitlines() if line]
        first, *_, last = [json.loads(line.removeprefix("data: ")) for line in lines]  # each is whole
        assert "error" not in first
        assert last["error"]["code"] == "READER_STALLED"
    assert stalled() == before + 1
    await at[0].check_serves()


async def test_bare_audio_has_no_end_and_the_log_says_why(
    at: tuple[Serving, httpx.AsyncClient], caplog: pytest.LogCaptureFixture
):
    """An error would be heard as noise, and a proper end would pass a part off as the whole."""
    caplog.set_level("INFO", "mynah.service")
    before = stalled()
    request = HELLO | {"input": LONG, "response_format": "pcm_f32le"} | LOUD
    async with at[1].stream("POST", SPEECH, json=request) as answer:
        await given_up(at[0])
        with pytest.raises(httpx.RemoteProtocolError):
            await answer.aread()
    assert stalled() == before + 1
    assert [record.fields["outcome"] for record in caplog.records if record.message == "stream ended"] == [  # type: ignore[attr-defined]
        "READER_STALLED"
    ]
    await at[0].check_serves()


async def test_nothing_is_answered_behind_an_error_that_was_not_read(at: tuple[Serving, httpx.AsyncClient]):
    """The transport would take any number of answers from then on."""
    host, _, port = str(at[0].http).rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    body = json.dumps(HELLO | {"input": LONG, "stream_format": "sse", "response_format": "pcm_f32le"} | LOUD).encode()
    head = f"POST {SPEECH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    more = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body + more)
    await given_up(at[0])
    answer = await reader.read()
    assert answer.count(b"HTTP/1.1 200 ") == 1
    assert b"READER_STALLED" in answer
    writer.close()
