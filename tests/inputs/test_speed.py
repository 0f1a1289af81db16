"""Speed and an early start on the shipped model, through every surface and its own socket."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import suppress

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

import mynah
from engines.time_scale import scaled_samples
from tests.inputs.surfaces import SURFACES, Shipped, call

TEXT = "The speed of this sentence changes."


@pytest.mark.parametrize("surface", SURFACES)
def test_every_surface_speaks_at_a_speed(runner: asyncio.Runner, at: Shipped, surface: str) -> None:
    plain = runner.run(call(at, surface, TEXT, {}))
    fast = runner.run(call(at, surface, TEXT, {"speed": 1.6}))
    assert plain.error == fast.error == ""
    assert plain.audio_bytes > 0
    if surface == "riva":  # takes no seed here: two draws differ by a token or two
        assert fast.audio_bytes == pytest.approx(plain.audio_bytes / 1.6, rel=0.25)
    else:
        assert fast.audio_bytes // 2 == scaled_samples(plain.audio_bytes // 2, 1.6)


@pytest.mark.parametrize("surface", SURFACES)
def test_every_surface_refuses_other_speeds(runner: asyncio.Runner, at: Shipped, surface: str) -> None:
    result = runner.run(call(at, surface, TEXT, {"speed": 2.5}))
    assert (result.error, result.audio_bytes) == ("SPEED_OUT_OF_RANGE", 0)


@pytest.mark.parametrize("surface", SURFACES)
def test_every_surface_takes_the_first_segment(runner: asyncio.Runner, at: Shipped, surface: str) -> None:
    text = "We will walk there, and then we rest."
    result = runner.run(call(at, surface, text, {"first_segment": "clause"}))
    assert result.error == ""
    if result.told_segments:
        assert result.spoken == ["We will walk there,", "and then we rest."]


def test_speed_1_is_the_speech_without_one(runner: asyncio.Runner, at: Shipped) -> None:
    async def data(speed: float | None) -> bytes:
        sampling = mynah.Sampling(seed=3, max_speech_tokens=30)
        return b"".join([chunk.data async for chunk in at.client.synthesize(TEXT, sampling=sampling, speed=speed)])

    assert runner.run(data(1.0)) == runner.run(data(None))


def test_server_sent_events_carry_the_same_audio(runner: asyncio.Runner, at: Shipped) -> None:
    async def speak(**more: str) -> bytes:
        body = {"input": TEXT, "response_format": "pcm", "speed": 0.7, "seed": 1, "max_speech_token_count": 6}
        async with httpx.AsyncClient(base_url=f"http://{at.http}", timeout=60) as client:
            answer = await client.post("/v1/audio/speech", json={**body, **more})
        if not more:
            return answer.content
        events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
        return b"".join(base64.b64decode(event["audio"]) for event in events if "audio" in event)

    assert runner.run(speak(stream_format="sse")) == runner.run(speak()) != b""


def test_the_speed_changes_between_the_segments_of_a_stream(runner: asyncio.Runner, at: Shipped) -> None:
    """Each segment begins after the answer to the flush before it, so that its speed is certain."""

    async def speak(speeds: list[float]) -> list[mynah.Event]:
        sampling = mynah.Sampling(seed=5, max_speech_tokens=12)
        seen: list[mynah.Event] = []
        async with at.client.stream(sampling=sampling, sample_rate_hz=16_000) as stream:
            events = stream.events()
            for speed in speeds:
                await stream.set_speed(speed)
                await stream.send("Good morning to you all.")
                await stream.flush()
                async for event in events:
                    seen.append(event)
                    if isinstance(event, mynah.Flushed):
                        break
            await stream.end()
            async for event in events:  # to its end, so that the server is free again
                seen.append(event)
        return seen

    speeds = [1.0, 2.0, 0.5, 1.3]
    events, plain = runner.run(speak(speeds)), runner.run(speak([1.0] * 4))
    assert [event.speed for event in events if isinstance(event, mynah.SegmentStarted)] == speeds
    offset = 0
    for event in events:
        if isinstance(event, mynah.AudioChunk):
            assert event.offset_samples == offset
            assert len(event.data) == 2 * event.samples
            offset += event.samples
    lengths = [[e.samples for e in one if isinstance(e, mynah.SegmentDone)] for one in (events, plain)]
    for speed, scaled, normal in zip(speeds, *lengths, strict=True):
        assert scaled == pytest.approx(normal / speed, abs=2)  # one sample at each rate


def test_a_cancel_at_twice_the_speed_counts_what_was_sent(runner: asyncio.Runner, at: Shipped) -> None:
    async def speak() -> tuple[int, mynah.Cancelled]:
        received = 0
        async with at.client.stream(speed=2.0) as stream:
            await stream.send("This is a sentence that goes on for a while. And here is another one of that kind. ")
            async for event in stream.events():
                if isinstance(event, mynah.AudioChunk):
                    received += event.samples
                    await stream.cancel()
                if isinstance(event, mynah.Cancelled):
                    return received, event
        raise AssertionError("the cancel was not answered")

    received, cancelled = runner.run(speak())
    assert 0 < received <= cancelled.delivered_samples <= cancelled.made_samples


def test_a_websocket_changes_the_speed_and_refuses_a_wrong_one(runner: asyncio.Runner, at: Shipped) -> None:
    async def speak() -> tuple[list[float], str]:
        speeds, error = [], ""
        async with connect(f"ws://{at.http}/v1/stream") as socket:
            await socket.send(json.dumps({"open": {"settings": {"sampling": {"max_speech_token_count": 5}}}}))
            await socket.send(json.dumps({"set_speed": {"speed": 1.75}}))
            await socket.send(json.dumps({"text": {"content": "Hello."}}))
            await socket.send(json.dumps({"flush": {"flush_id": 1}}))
            with suppress(ConnectionClosedError):  # after the error, which comes as a frame
                async for frame in socket:
                    event = {} if isinstance(frame, bytes) else json.loads(frame)
                    speeds += [event["segment_started"]["speed"]] if "segment_started" in event else []
                    error = event["error"]["code"] if "error" in event else error
                    if "flushed" in event:
                        await socket.send(json.dumps({"set_speed": {"speed": 0}}))
        return speeds, error

    assert runner.run(speak()) == ([1.75], "SPEED_OUT_OF_RANGE")
