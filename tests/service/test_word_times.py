"""Word times over real sockets: gRPC, WebSocket, server-sent events, captioned speech, Riva; and typed refusals."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY

import mynah
from engines.api import WordGuardReport
from engines.fake import Script
from mynah.client.errors import from_status
from tests.service.grpc.riva_client import RivaClient, RivaError, riva_client
from tests.service.http.clients import SPEECH, http_serving, socket
from tests.service.serving import serving

TEXT = "This is said once. And this as well."
WORDS = ["This", "is", "said", "once", "And", "this", "as", "well"]
CAPTIONED = "/dev/captioned_speech"
NONE = Script(word_times=False)


@pytest.fixture(scope="module")
def riva() -> Iterator[RivaClient]:
    with riva_client() as client:
        yield client


def check_times(starts_s: list[float], ends_s: list[float]) -> None:
    """The fake engine gives each character 40 ms."""
    lengths = [len(word) * 0.04 for word in WORDS]
    assert [end - start for start, end in zip(starts_s, ends_s, strict=True)] == pytest.approx(lengths, abs=0.002)
    assert starts_s[0] == pytest.approx(0.0, abs=0.001)
    assert starts_s == sorted(starts_s)


async def test_a_stream_of_the_client_yields_words():
    async with serving() as at:
        assert (await at.client.info()).word_times
        async with at.client.stream(word_times=True, sample_rate_hz=16_000) as stream:
            assert stream.opened.settings.word_times
            await stream.send(TEXT)
            await stream.end()
            events = [event async for event in stream.events()]
        words = [word for event in events if isinstance(event, mynah.Words) for word in event.words]
        assert [word.text for word in words] == [word.spoken_text for word in words] == WORDS
        check_times([word.start_samples / 16_000 for word in words], [word.end_samples / 16_000 for word in words])


async def test_a_cancelled_stream_says_which_words_were_sent():
    async with serving(Script(token_s=0.002)) as at, at.client.stream(word_times=True) as stream:
        await stream.send("Some words that are not heard to their end. " * 4)
        async for event in stream.events():
            if isinstance(event, mynah.AudioChunk):
                break
        await stream.cancel()
        cancelled = [event async for event in _until_cancelled(stream)][-1]
        assert isinstance(cancelled, mynah.Cancelled)
        assert [word.text for word in cancelled.words][:2] == ["Some", "words"]
        assert cancelled.words[-1].end_samples <= cancelled.delivered_samples


async def _until_cancelled(stream: mynah.SpeechStream):
    async for event in stream.events():
        yield event
        if isinstance(event, mynah.Cancelled):
            return


async def test_a_web_socket_sends_words():
    async with http_serving() as (at, _), socket(at) as stream:
        await stream.send(open={"settings": {"word_times": True}})
        await stream.send(text={"content": TEXT})
        await stream.send(end={})
        events = await stream.receive_all()
    words = [word for event in events if "words" in event for word in event["words"]["words"]]
    assert [word["text"] for word in words] == WORDS
    check_times(*([int(word[f"{end}_samples"]) / 24_000 for word in words] for end in ("start", "end")))


async def test_server_sent_events_have_words():
    async with http_serving() as (_, client):
        body = {"input": TEXT, "response_format": "pcm", "stream_format": "sse", "word_times": True}
        answer = await client.post(SPEECH, json=body)
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]
    words = [word for event in events if event["type"] == "speech.audio.words" for word in event["words"]]
    assert [word["word"] for word in words] == WORDS
    assert [word["segment_index"] for word in words] == [0] * 4 + [1] * 4
    check_times([word["start"] for word in words], [word["end"] for word in words])


@pytest.mark.parametrize("stream", [True, False])
async def test_captioned_speech_as_kokoros_clients_ask_for_it(stream: bool):
    body = {"model": "kokoro", "input": TEXT, "voice": "default", "response_format": "wav", "stream": stream}
    async with http_serving() as (_, client):
        answer = await client.post(CAPTIONED, json=body | {"model": "tts-1", "return_timestamps": True})
        plain = await client.post(SPEECH, json=body | {"model": "tts-1"})
        without = await client.post(CAPTIONED, json=body | {"model": "tts-1", "return_timestamps": False})
    objects = [json.loads(line) for line in answer.text.splitlines()]
    assert (len(objects) > 1) is stream
    assert len(b"".join(base64.b64decode(each["audio"]) for each in objects)) == len(plain.content)
    assert {each["audio_format"] for each in objects} == {"audio/wav"}
    words = [word for each in objects for word in each["timestamps"]]
    assert [word["word"] for word in words] == WORDS
    check_times([word["start_time"] for word in words], [word["end_time"] for word in words])
    assert all(json.loads(line)["timestamps"] is None for line in without.text.splitlines())


@pytest.mark.parametrize(
    ("path", "body", "field", "reason"),
    [
        (SPEECH, {"word_times": True}, "word_times", "VALUE_INVALID"),
        (SPEECH, {"word_times": 1}, "word_times", "VALUE_INVALID"),
        (SPEECH, {"word_guard": "yes"}, "word_guard", "VALUE_INVALID"),
        (CAPTIONED, {"return_timestamps": "yes"}, "return_timestamps", "VALUE_INVALID"),
        (CAPTIONED, {"stream_format": "sse"}, "stream_format", "FIELD_UNKNOWN"),
        (CAPTIONED, {"word_times": True}, "word_times", "FIELD_UNKNOWN"),
    ],
)
async def test_http_refuses_what_it_cannot_send(path: str, body: dict, field: str, reason: str):
    async with http_serving() as (_, client):
        answer = await client.post(path, json={"input": TEXT} | body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, field, reason)


async def test_riva_gets_words_in_milliseconds(riva: RivaClient):
    ask = {"sample_rate_hz": 16_000, "enable_word_time_offsets": True, "custom_configuration": {"seed": "7"}}
    async with serving() as at:
        answer = await riva(at.address, "synthesize", TEXT, **ask)
        online = await riva(at.address, "synthesize_online", TEXT, **ask)
    for words in (list(answer.meta.words), [word for each in online for word in each.meta.words]):
        assert [word.word for word in words] == WORDS
        check_times([word.start_time / 1000 for word in words], [word.end_time / 1000 for word in words])
    assert b"".join(each.audio for each in online) == answer.audio


async def test_an_engine_without_word_times_says_so_and_refuses(riva: RivaClient):
    async with http_serving(NONE) as (at, client):
        info = await at.client.info()
        assert not info.word_times
        assert info.word_times_notice
        for asked, reason in (({"word_times": True}, "WORD_TIMES"), ({"word_guard": True}, "WORD_GUARD")):
            with pytest.raises(mynah.InvalidArgument) as refused:
                async with at.client.stream(**asked):
                    pass
            assert refused.value.reason == f"{reason}_UNAVAILABLE"
            assert info.word_times_notice in str(refused.value)
        body = {"input": TEXT, "stream_format": "sse", "word_times": True}
        error = (await client.post(SPEECH, json=body)).json()["error"]
        assert (error["param"], error["code"]) == ("word_times", "WORD_TIMES_UNAVAILABLE")
        error = (await client.post(CAPTIONED, json={"input": TEXT})).json()["error"]
        assert error["code"] == "WORD_TIMES_UNAVAILABLE"
        with pytest.raises(RivaError) as status:
            await riva(at.address, "synthesize", TEXT, enable_word_time_offsets=True)
        code, details, trailing = status.value.status
        assert from_status(code, details, trailing).field == "enable_word_time_offsets"
        await at.check_serves()


async def test_what_the_guard_found_is_in_segment_done_and_in_the_metrics():
    report = WordGuardReport("invented_tail", "stopped", 1, 17)
    counted = ("mynah_word_guard_total", {"fault": "invented_tail", "action": "stopped"})
    before = REGISTRY.get_sample_value(*counted) or 0.0
    async with serving(Script(word_guard=report)) as at:
        for asked, expected in ((True, mynah.WordGuard("invented_tail", "stopped", 1, 17)), (False, None)):
            async with at.client.stream(word_guard=asked) as stream:
                await stream.send("This is said once.")
                await stream.end()
                done = [event async for event in stream.events() if isinstance(event, mynah.SegmentDone)]
            assert [each.word_guard for each in done] == [expected]
    assert REGISTRY.get_sample_value(*counted) == before + 1


async def test_a_server_that_guards_by_default_serves_a_model_that_cannot():
    async with serving(NONE, word_guard=True) as at, at.client.stream() as stream:
        assert stream.opened.settings.word_guard is False
    async with serving(word_guard=True) as at:
        async with at.client.stream() as stream:
            assert stream.opened.settings.word_guard is True
        async with at.client.stream(word_guard=False) as stream:
            assert stream.opened.settings.word_guard is False
