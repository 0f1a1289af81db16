"""The WebSocket /v1/stream: the same stream as over gRPC, in JSON and binary frames."""

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
from tests.service.http.clients import LONG, Stream, http_serving, kinds, socket
from tests.service.serving import flush, opening, text

SLOW = Script(token_s=0.002, decode_s=0.01)
TWO = "First there was one sentence. Then there was a second one."


async def test_a_stream_in_the_order_of_the_contract():
    async with http_serving() as (at, _), socket(at) as stream:
        await stream.send(open={})
        await stream.send(text={"content": TWO})
        await stream.send(flush={"flush_id": 1})
        await stream.send(text={"content": "And more"})
        await stream.send(end={})
        events = await stream.receive_all()
        segment = ["segment_started", "audio", "segment_done"]
        assert kinds(events) == ["opened", *segment, *segment, "flushed", *segment]
        assert stream.close_code == 1000
        await at.settled()


async def test_opened_has_every_default():
    async with http_serving() as (at, _), socket(at) as stream:
        settings = {
            "audio_format": "AUDIO_FORMAT_OGG_OPUS",
            "sampling": {"seed": "9007199254740993"},
            "text": {"dictionary": [{"word": "nginx", "respelling": "engine ex"}]},
        }
        await stream.send(open={"settings": settings})
        opened = (await stream.receive())["opened"]
        assert opened["settings"]["audio_format"] == "AUDIO_FORMAT_OGG_OPUS"
        assert opened["settings"]["sample_rate_hz"] == 24_000
        assert opened["settings"]["sampling"]["seed"] == "9007199254740993"
        assert opened["limits"]["max_open_stream_count"] == 4
        assert opened["dictionary_entry_count"] == 1
        assert opened["stream_id"] == stream.connection.response.headers["x-request-id"]


@pytest.mark.parametrize("audio", ["binary", "base64"])
async def test_audio_is_the_engines_in_either_encoding(audio: str):
    async with http_serving() as (at, _), socket(at, f"?audio={audio}") as stream:
        await stream.send(open={"settings": {"sampling": {"seed": 5}}})
        await stream.send(text={"content": "Hello there."})
        await stream.send(end={})
        chunks = [event["audio"] for event in await stream.receive_all() if "audio" in event]
        pieces = [chunk["data"] for chunk in chunks]
        data = b"".join(pieces if audio == "binary" else map(base64.b64decode, pieces))
        assert data == pcm_s16le(tone("Hello there.", fake_voice("default"), 5, 12 * 960))
        assert [chunk["sequence_number"] for chunk in chunks] == [str(number) for number in range(len(chunks))]
        assert [int(chunk["offset_samples"]) for chunk in chunks] == [0, 9600]


async def test_messages_may_be_protobuf():
    async with http_serving() as (at, _), socket(at) as stream:
        for request in (opening(sample_rate_hz=16_000), text("Hello there."), flush(3)):
            await stream.connection.send(request.SerializeToString())
        await stream.send(end={})
        assert kinds(await stream.receive_all())[-1] == "flushed"


async def test_a_cancel_is_acknowledged_and_the_stream_goes_on():
    async with http_serving(SLOW) as (at, _), socket(at) as stream:
        await stream.send(open={})
        await stream.send(text={"content": LONG})
        await stream.send(flush={"flush_id": 7})
        while "audio" not in (await stream.receive()):
            pass
        await stream.send(cancel={})
        while "cancelled" not in (event := await stream.receive()):
            pass
        cancelled = event["cancelled"]
        assert cancelled["dropped_flush_ids"] == ["7"]
        await stream.send(text={"content": "New words."})
        await stream.send(end={})
        events = await stream.receive_all()
        assert [event["segment_started"]["text"] for event in events if "segment_started" in event] == ["New words."]
        first = next(event["audio"] for event in events if "audio" in event)
        assert first["offset_samples"] == cancelled["delivered_sample_count"]
        await at.settled()


async def rejection(stream: Stream) -> tuple[str, int | None]:
    """Reads to the end; returns the reason of the final error, and the close code."""
    last = (await stream.receive_all())[-1]
    return last["error"]["code"], stream.close_code


@pytest.mark.parametrize(
    ("frames", "reason", "code"),
    [
        (["not json"], "MESSAGE_INVALID", 4400),
        (["[]"], "MESSAGE_INVALID", 4400),
        (["{}"], "MESSAGE_INVALID", 4400),
        (['{"open": {}, "cancel": {}}'], "MESSAGE_INVALID", 4400),
        (['{"open": {"setings": {}}}'], "MESSAGE_INVALID", 4400),
        (["[" * 50_000], "MESSAGE_INVALID", 4400),
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
async def test_invalid_messages_end_their_own_stream_only(frames: list[str | bytes], reason: str, code: int):
    script = Script(close_s=0.1)  # so that a stream is still open when a message arrives after its end
    async with http_serving(script, max_pending_text_chars=1000) as (at, _):
        async with socket(at) as stream:
            for frame in frames:
                await stream.connection.send(frame)
            assert await rejection(stream) == (reason, code)
        await at.check_serves()


@pytest.mark.parametrize("query", ["?audio=mp3", "?audio=binary&audio=base64", "?voice=x"])
async def test_an_invalid_query_is_rejected(query: str):
    async with http_serving() as (at, _), socket(at, query) as stream:
        assert (await rejection(stream))[1] == 4400


async def test_a_message_too_long_ends_the_connection():
    async with http_serving() as (at, _):
        async with socket(at) as stream:
            await stream.send(open={})
            with suppress(ConnectionClosed):
                await stream.connection.send("x" * (5 * 1024 * 1024))
            await stream.receive_all()
            assert stream.close_code == 1009
        await at.settled()
        await at.check_serves()


async def test_invalid_utf8_ends_the_connection(caplog: pytest.LogCaptureFixture):
    async with http_serving() as (at, _):
        async with socket(at) as stream:
            await stream.connection.send(b"\xff\xfe", text=True)
            await stream.receive_all()
            assert stream.close_code == 1007
        await at.check_serves()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_an_engine_failure_is_sent_to_the_client():
    script = Script(failure=EngineFailure("broken"), fail_after_chunks=1, first_hop_tokens=4)
    async with http_serving(script) as (at, _), socket(at) as stream:
        await stream.send(open={})
        await stream.send(text={"content": "Hello there."})
        await stream.send(end={})
        last = (await stream.receive_all())[-1]["error"]
        assert (last["code"], last["type"], last["retry_after_s"]) == ("ENGINE_FAILURE", "server_error", 1.0)
        assert stream.close_code == 4500
        await at.settled()


async def test_a_full_server_says_when_to_retry():
    async with http_serving(SLOW, max_streams=1) as (at, _), socket(at) as first, socket(at) as second:
        await first.send(open={})
        await first.receive()
        await second.send(open={})
        event = await second.receive()
        assert (event["error"]["code"], event["error"]["retry_after_s"]) == ("STREAMS_EXHAUSTED", 1.0)
        assert await second.receive() is None
        assert second.close_code == 4429


@pytest.mark.parametrize("ended", [False, True])
async def test_a_client_that_disconnects_cancels_the_engines_work(ended: bool):
    async with http_serving(SLOW) as (at, _):
        async with socket(at) as stream:
            await stream.send(open={})
            await stream.send(text={"content": LONG})
            if ended:
                await stream.send(end={})
            while "audio" not in (await stream.receive()):
                pass
            stream.connection.transport.abort()
        await at.settled()
        assert at.engine.cancelled_segments == 1
        await at.check_serves()


async def test_an_idle_stream_is_ended():
    async with http_serving(idle_timeout_s=0.1) as (at, _):
        for opened in (False, True):
            async with socket(at) as stream:
                if opened:
                    await stream.send(open={})
                assert await rejection(stream) == ("STREAM_IDLE", 4408)
        await at.settled()


async def test_a_stalled_reader_loses_its_stream():
    async with http_serving(stall_timeout_s=0.3, send_queue_events=2) as (at, _):
        async with socket(at, max_queue=1) as stream:
            await stream.send(open={"settings": {"audio_format": "AUDIO_FORMAT_PCM_F32LE", "sample_rate_hz": 48_000}})
            await stream.send(text={"content": LONG})
            async with asyncio.timeout(10):
                while not at.engine.made_samples:
                    await at.engine.progress.wait()
                await at.server.admission.wait_idle()
            assert at.engine.made_samples < len(LONG) * 960
            stream.connection.transport.abort()
        await at.check_serves()


async def test_draining_ends_streams_with_a_reason():
    async with http_serving(SLOW) as (at, _), socket(at) as stream:
        await stream.send(open={})
        await stream.receive()
        await at.server.stop(0)
        assert await rejection(stream) == ("DRAINING", 4503)


async def test_other_websocket_paths_are_not_found():
    async with http_serving() as (at, client):
        with pytest.raises(InvalidStatus) as raised:
            async with socket(at, "/nothing"):
                pass
        assert raised.value.response.status_code == 404
        assert (await client.get("/v1/stream")).status_code == 426


async def test_the_messages_are_those_of_the_contract():
    """A text frame is a StreamSpeechResponse in protobuf's JSON, except for the audio's data."""
    from google.protobuf.json_format import ParseDict

    async with http_serving() as (at, _), socket(at, "?audio=base64") as stream:
        await stream.send(open={})
        await stream.send(text={"content": TWO})
        await stream.send(flush={"flush_id": 1})
        await stream.send(cancel={})
        await stream.send(end={})
        events = [ParseDict(event, speech_pb2.StreamSpeechResponse()) for event in await stream.receive_all()]
        assert {event.WhichOneof("event") for event in events} >= {"opened", "cancelled"}
