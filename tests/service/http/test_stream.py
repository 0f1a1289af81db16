"""The WebSocket /v1/stream: the same conversation as over gRPC, in JSON and binary frames."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import suppress

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from engines.errors import EngineFailure
from engines.fake import Script, fake_voice, tone
from mynah.v1 import speech_pb2
from service.audio.codecs import pcm_s16le
from tests.service.http.browsing import LONG, Stream, browsing, kinds, socket
from tests.service.serving import flush, opening, text

SLOW = Script(token_s=0.002, decode_s=0.01)
TWO = "First there was one sentence. Then there was a second one."


async def test_a_streams_events_come_in_the_order_of_the_contract():
    async with browsing() as (at, _), socket(at) as stream:
        await stream.say(open={})
        await stream.say(text={"content": TWO})
        await stream.say(flush={"flush_id": 1})
        await stream.say(text={"content": "And more"})
        await stream.say(end={})
        events = await stream.hear_all()
        segment = ["segment_started", "audio", "segment_done"]
        assert kinds(events) == ["opened", *segment, *segment, "flushed", *segment]
        assert stream.close_code == 1000
        await at.settled()


async def test_what_is_opened_is_told_with_every_default():
    async with browsing() as (at, _), socket(at) as stream:
        settings = {"audio_format": "AUDIO_FORMAT_OGG_OPUS", "sampling": {"seed": "9007199254740993"}}
        await stream.say(open={"settings": settings})
        opened = (await stream.hear())["opened"]
        assert opened["settings"]["audio_format"] == "AUDIO_FORMAT_OGG_OPUS"
        assert opened["settings"]["sample_rate_hz"] == 24_000
        assert opened["settings"]["sampling"]["seed"] == "9007199254740993"
        assert opened["limits"]["max_open_stream_count"] == 4
        assert opened["stream_id"] == stream.connection.response.headers["x-request-id"]


@pytest.mark.parametrize("audio", ["binary", "base64"])
async def test_audio_is_the_engines_in_either_form(audio: str):
    async with browsing() as (at, _), socket(at, f"?audio={audio}") as stream:
        await stream.say(open={"settings": {"sampling": {"seed": 5}}})
        await stream.say(text={"content": "Hello there."})
        await stream.say(end={})
        chunks = [event["audio"] for event in await stream.hear_all() if "audio" in event]
        pieces = [chunk["data"] for chunk in chunks]
        data = b"".join(pieces if audio == "binary" else map(base64.b64decode, pieces))
        assert data == pcm_s16le(tone("Hello there.", fake_voice("default"), 5, 12 * 960))
        assert [chunk["sequence_number"] for chunk in chunks] == [str(number) for number in range(len(chunks))]
        assert [int(chunk["offset_samples"]) for chunk in chunks] == [0, 9600]


async def test_messages_may_come_as_protobuf():
    async with browsing() as (at, _), socket(at) as stream:
        for request in (opening(sample_rate_hz=16_000), text("Hello there."), flush(3)):
            await stream.connection.send(request.SerializeToString())
        await stream.say(end={})
        assert kinds(await stream.hear_all())[-1] == "flushed"


async def test_cancel_is_answered_and_the_stream_goes_on():
    async with browsing(SLOW) as (at, _), socket(at) as stream:
        await stream.say(open={})
        await stream.say(text={"content": LONG})
        await stream.say(flush={"flush_id": 7})
        while "audio" not in (await stream.hear()):
            pass
        await stream.say(cancel={})
        while "cancelled" not in (event := await stream.hear()):
            pass
        cancelled = event["cancelled"]
        assert cancelled["dropped_flush_ids"] == ["7"]
        await stream.say(text={"content": "New words."})
        await stream.say(end={})
        events = await stream.hear_all()
        assert [event["segment_started"]["text"] for event in events if "segment_started" in event] == ["New words."]
        first = next(event["audio"] for event in events if "audio" in event)
        assert first["offset_samples"] == cancelled["delivered_sample_count"]
        await at.settled()


async def refused(stream: Stream) -> tuple[str, int | None]:
    """The reason that the stream ends with, and the close code."""
    last = (await stream.hear_all())[-1]
    return last["error"]["code"], stream.close_code


@pytest.mark.parametrize(
    ("frames", "reason", "code"),
    [
        (["not json"], "MESSAGE_INVALID", 4400),
        (["[]"], "MESSAGE_INVALID", 4400),
        (["{}"], "MESSAGE_INVALID", 4400),
        (['{"open": {}, "cancel": {}}'], "MESSAGE_INVALID", 4400),
        (['{"open": {"setings": {}}}'], "MESSAGE_INVALID", 4400),
        (["[" * 100_000], "MESSAGE_INVALID", 4400),
        ([b"\xff\xff"], "MESSAGE_INVALID", 4400),
        (['{"text": {"content": "Hi."}}'], "STREAM_NOT_OPEN", 4409),
        (['{"end": {}}'], "STREAM_NOT_OPEN", 4409),
        (['{"open": {}}', '{"open": {}}'], "STREAM_ALREADY_OPEN", 4409),
        (['{"open": {}}', '{"flush": {"flush_id": 0}}'], "FLUSH_ID_INVALID", 4400),
        (['{"open": {"settings": {"voice_id": "nobody"}}}'], "VOICE_NOT_FOUND", 4404),
        (['{"open": {"settings": {"audio_format": 99}}}'], "AUDIO_FORMAT_UNKNOWN", 4400),
        (['{"open": {}}', json.dumps({"text": {"content": "x" * 1001}})], "TEXT_BACKLOG_FULL", 4429),
        (['{"open": {}}', '{"end": {}}', '{"cancel": {}}'], "STREAM_ENDED", 4409),
    ],
)
async def test_mistakes_are_told_and_cost_nobody_else_anything(frames: list[str | bytes], reason: str, code: int):
    script = Script(close_s=0.1)  # so that a stream whose end was said is still there when more comes
    async with browsing(script, max_pending_text_chars=1000) as (at, _):
        async with socket(at) as stream:
            for frame in frames:
                await stream.connection.send(frame)
            assert await refused(stream) == (reason, code)
        await at.check_serves()


@pytest.mark.parametrize("query", ["?audio=mp3", "?audio=binary&audio=base64", "?voice=x"])
async def test_a_query_that_is_not_understood_is_refused(query: str):
    async with browsing() as (at, _), socket(at, query) as stream:
        assert (await refused(stream))[1] == 4400


async def test_a_message_too_long_ends_the_connection():
    async with browsing() as (at, _):
        async with socket(at) as stream:
            await stream.say(open={})
            with suppress(ConnectionClosed):
                await stream.connection.send("x" * (5 * 1024 * 1024))
            await stream.hear_all()
            assert stream.close_code == 1009
        await at.settled()
        await at.check_serves()


async def test_text_that_is_no_text_ends_the_connection(caplog: pytest.LogCaptureFixture):
    async with browsing() as (at, _):
        async with socket(at) as stream:
            await stream.connection.send(b"\xff\xfe", text=True)
            await stream.hear_all()
            assert stream.close_code == 1007
        await at.check_serves()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_an_engine_that_fails_is_told_of():
    script = Script(failure=EngineFailure("broken"), fail_after_chunks=1, first_hop_tokens=4)
    async with browsing(script) as (at, _), socket(at) as stream:
        await stream.say(open={})
        await stream.say(text={"content": "Hello there."})
        await stream.say(end={})
        last = (await stream.hear_all())[-1]["error"]
        assert (last["code"], last["type"], last["retry_after_s"]) == ("ENGINE_FAILURE", "server_error", 1.0)
        assert stream.close_code == 4500
        await at.settled()


async def test_no_room_is_told_with_a_time_to_come_back():
    async with browsing(SLOW, max_streams=1) as (at, _), socket(at) as first, socket(at) as second:
        await first.say(open={})
        await first.hear()
        await second.say(open={})
        event = await second.hear()
        assert (event["error"]["code"], event["error"]["retry_after_s"]) == ("STREAMS_EXHAUSTED", 1.0)
        assert await second.hear() is None
        assert second.close_code == 4429


@pytest.mark.parametrize("ended", [False, True])
async def test_a_client_that_leaves_ends_the_engines_work(ended: bool):
    async with browsing(SLOW) as (at, _):
        async with socket(at) as stream:
            await stream.say(open={})
            await stream.say(text={"content": LONG})
            if ended:
                await stream.say(end={})
            while "audio" not in (await stream.hear()):
                pass
            stream.connection.transport.abort()
        await at.settled()
        assert at.engine.cancelled_segments == 1
        await at.check_serves()


async def test_a_stream_on_which_nothing_happens_is_ended():
    async with browsing(idle_timeout_s=0.1) as (at, _):
        for opened in (False, True):
            async with socket(at) as stream:
                if opened:
                    await stream.say(open={})
                assert await refused(stream) == ("STREAM_IDLE", 4408)
        await at.settled()


async def test_a_reader_that_stalls_loses_its_stream():
    async with browsing(stall_timeout_s=0.3, send_queue_events=2) as (at, _):
        async with socket(at, max_queue=1) as stream:
            await stream.say(open={"settings": {"audio_format": "AUDIO_FORMAT_PCM_F32LE", "sample_rate_hz": 48_000}})
            await stream.say(text={"content": LONG})
            async with asyncio.timeout(10):
                while not at.engine.made_samples:
                    await at.engine.progress.wait()
                await at.server.admission.wait_idle()
            assert at.engine.made_samples < len(LONG) * 960
            stream.connection.transport.abort()
        await at.check_serves()


async def test_draining_ends_streams_with_a_reason():
    async with browsing(SLOW) as (at, _), socket(at) as stream:
        await stream.say(open={})
        await stream.hear()
        await at.server.stop(0)
        assert await refused(stream) == ("DRAINING", 4503)


async def test_a_path_that_is_no_stream_is_not_found():
    async with browsing() as (at, client):
        with pytest.raises(InvalidStatus) as raised:
            async with socket(at, "/nothing"):
                pass
        assert raised.value.response.status_code == 404
        assert (await client.get("/v1/stream")).status_code == 404


async def test_the_messages_are_those_of_the_contract():
    """A text frame is a StreamSpeechResponse in protobuf's own JSON, but for the audio's data."""
    from google.protobuf.json_format import ParseDict

    async with browsing() as (at, _), socket(at, "?audio=base64") as stream:
        await stream.say(open={})
        await stream.say(text={"content": TWO})
        await stream.say(flush={"flush_id": 1})
        await stream.say(cancel={})
        await stream.say(end={})
        events = [ParseDict(event, speech_pb2.StreamSpeechResponse()) for event in await stream.hear_all()]
        assert {event.WhichOneof("event") for event in events} >= {"opened", "cancelled"}
