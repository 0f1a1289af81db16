"""POST /v1/audio/speech as OpenAI's clients use it: formats, streaming, events, errors, clients that disconnect."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import httpx
import pytest

from engines.errors import EngineBusy, EngineFailure
from engines.fake import Script, fake_voice, tone
from service.audio.codecs import pcm_s16le
from service.audio.formats import SAMPLE_RATES_HZ, AudioFormat, AudioSettings
from service.http.speech_request import MEDIA_TYPES, RESPONSE_FORMATS
from tests.service.audio.decoding import decode
from tests.service.http.clients import HELLO, LONG, SPEECH, http_serving

SLOW = Script(token_s=0.002, decode_s=0.01)


def test_openais_format_names_have_openais_meaning():
    openais = {name: RESPONSE_FORMATS[name].value for name in ("mp3", "opus", "aac", "flac", "wav", "pcm")}
    assert openais == {
        "mp3": "mp3", "opus": "ogg_opus", "aac": "aac", "flac": "flac", "wav": "wav", "pcm": "pcm_s16le"
    }  # fmt: skip
    assert MEDIA_TYPES.keys() == set(AudioFormat)


@pytest.mark.parametrize("name", [*RESPONSE_FORMATS, None])
async def test_every_format_decodes_as_its_media_type(name: str | None):
    async with http_serving() as (_, client):
        answer = await client.post(SPEECH, json=HELLO | ({"response_format": name} if name else {}))
        audio_format = RESPONSE_FORMATS[name or "mp3"]
        assert (answer.status_code, answer.headers["content-type"]) == (200, MEDIA_TYPES[audio_format])
        audio = AudioSettings(audio_format, audio_format.default_rate_hz)
        assert len(decode(answer.content, audio)) / audio.sample_rate_hz == pytest.approx(0.48, abs=0.12)


async def test_pcm_is_the_engines_and_repeatable_with_a_seed():
    async with http_serving() as (at, client):
        request = HELLO | {"response_format": "pcm", "seed": 5, "voice": {"id": "default"}, "speed": 1.0}
        answer = await client.post(SPEECH, json=request)
        assert answer.content == pcm_s16le(tone("Hello there.", fake_voice("default"), 5, 12 * 960))
        await at.settled()


async def test_all_of_our_own_fields_are_used():
    fields = {"temperature": 0.5, "top_k": 7, "top_p": 0.5, "repetition_penalty": 1, "max_speech_token_count": 4}
    async with http_serving() as (_, client):
        request = HELLO | fields | {"response_format": "pcm", "sample_rate_hz": 16_000}
        assert len((await client.post(SPEECH, json=request)).content) == 2 * 4 * 640


async def test_pcm_supports_every_rate():
    async with http_serving() as (_, client):
        for rate_hz in SAMPLE_RATES_HZ:
            request = HELLO | {"response_format": "pcm", "sample_rate_hz": rate_hz}
            assert len((await client.post(SPEECH, json=request)).content) == 2 * 12 * rate_hz // 25


async def test_audio_is_streamed_while_it_is_made():
    async with http_serving(Script(token_s=0.01)) as (at, client):
        request = HELLO | {"input": "A sentence of some forty letters, or more.", "response_format": "pcm"}
        async with client.stream("POST", SPEECH, json=request) as answer:
            assert answer.headers["transfer-encoding"] == "chunked"
            pieces = answer.aiter_raw()
            first = await anext(pieces)
            assert at.engine.done_segments == 0, "the rest is still being made"
            rest = [piece async for piece in pieces]
        assert len(first) + sum(map(len, rest)) == 2 * 42 * 960


async def test_events_carry_the_same_audio_and_count_tokens():
    async with http_serving() as (_, client):
        request = HELLO | {"response_format": "pcm", "seed": 5}
        audio = (await client.post(SPEECH, json=request)).content
        answer = await client.post(SPEECH, json=request | {"stream_format": "sse"})
        assert answer.headers["content-type"] == "text/event-stream"
        events = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]
        assert {event["type"] for event in events[:-1]} == {"speech.audio.delta"}
        assert b"".join(base64.b64decode(event["audio"]) for event in events[:-1]) == audio
        usage = {"input_tokens": 12, "output_tokens": 12, "total_tokens": 24}
        assert events[-1] == {"type": "speech.audio.done", "usage": usage}


async def test_events_have_the_marks_of_ssml():
    async with http_serving() as (_, client):
        text = "One<mark name='a'/><break time='1s'/>two."
        request = HELLO | {"input": text, "markup": "ssml", "response_format": "pcm", "stream_format": "sse"}
        answer = await client.post(SPEECH, json=request)
        events = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]
        (mark,) = (event for event in events if event["type"] == "speech.mark")
        assert mark == {"type": "speech.mark", "name": "a", "offset_samples": 3 * 960}
        audio = b"".join(base64.b64decode(event["audio"]) for event in events if "audio" in event)
        assert not any(audio[2 * 3 * 960 : 2 * (3 * 960 + 24_000)])


async def test_a_dictionary_may_be_an_object_or_a_list():
    async with http_serving() as (_, client):
        request = HELLO | {"input": "Run nginx.", "response_format": "pcm", "seed": 5}
        spoken = (await client.post(SPEECH, json=request | {"input": "Run engine ex."})).content
        entry = {"word": "nginx", "respelling": "engine ex", "case_sensitive": True}
        for dictionary in ({"nginx": "engine ex"}, [entry]):
            answer = await client.post(SPEECH, json=request | {"dictionary": dictionary})
            assert answer.content == spoken
            assert answer.headers["x-mynah-dictionary-entries"] == "1"
        without = await client.post(SPEECH, json=request)
        assert without.content != spoken
        assert "x-mynah-dictionary-entries" not in without.headers


@pytest.mark.parametrize(
    ("change", "param", "reason"),
    [
        ({"input": None}, "input", "FIELD_MISSING"),
        ({"stream": "no"}, "stream", "VALUE_INVALID"),
        ({"stream": False, "stream_format": "sse"}, "stream", "VALUE_INVALID"),
        ({"input": ""}, "input", "TEXT_EMPTY"),
        ({"input": " \n"}, "input", "TEXT_EMPTY"),
        ({"input": "..."}, "input", "TEXT_EMPTY"),
        ({"input": "x" * 1001}, "input", "TEXT_TOO_LONG"),
        ({"input": 7}, "input", "VALUE_INVALID"),
        ({"input": "\ud800"}, "input", "VALUE_INVALID"),
        ({"voice": "Not an id"}, "voice", "VOICE_ID_INVALID"),
        ({"voice": ["default"]}, "voice", "VALUE_INVALID"),
        ({"response_format": "ogg"}, "response_format", "AUDIO_FORMAT_UNKNOWN"),
        ({"response_format": "opus", "sample_rate_hz": 44_100}, "sample_rate_hz", "SAMPLE_RATE_UNSUPPORTED"),
        ({"sample_rate_hz": 2**40}, "sample_rate_hz", "VALUE_INVALID"),
        ({"stream_format": "xml"}, "stream_format", "STREAM_FORMAT_UNKNOWN"),
        ({"speed": 2.1}, "speed", "SPEED_OUT_OF_RANGE"),
        ({"speed": 0.25}, "speed", "SPEED_OUT_OF_RANGE"),
        ({"speed": "fast"}, "speed", "VALUE_INVALID"),
        ({"instructions": "Whisper."}, "instructions", "INSTRUCTIONS_UNSUPPORTED"),
        ({"temperature": True}, "temperature", "VALUE_INVALID"),
        ({"temperature": 10**400}, "temperature", "VALUE_INVALID"),
        ({"temperature": 6}, "temperature", "SAMPLING_OUT_OF_RANGE"),
        ({"max_speech_token_count": 0}, "max_speech_token_count", "SAMPLING_OUT_OF_RANGE"),
        ({"seed": -1}, "seed", "VALUE_INVALID"),
        ({"pitch": 2}, "pitch", "FIELD_UNKNOWN"),
        ({"normalize": "no"}, "normalize", "VALUE_INVALID"),
        ({"emoji": "say"}, "emoji", "EMOJI_UNKNOWN"),
        ({"paragraph_pause_s": 11}, "paragraph_pause_s", "PAUSE_TOO_LONG"),
        ({"paragraph_pause_s": "long"}, "paragraph_pause_s", "VALUE_INVALID"),
        ({"dictionary": "a"}, "dictionary", "VALUE_INVALID"),
        ({"dictionary": {"a": 5}}, "dictionary", "VALUE_INVALID"),
        ({"dictionary": {"a": "\ud800"}}, "dictionary", "VALUE_INVALID"),
        ({"dictionary": [{"word": "a"}]}, "dictionary", "VALUE_INVALID"),
        ({"dictionary": [{"word": "a", "respelling": "b", "ipa": "c"}]}, "dictionary", "VALUE_INVALID"),
        ({"dictionary": {"a": "..."}}, "dictionary", "DICTIONARY_ENTRY_INVALID"),
        ({"dictionary": {"a": "ˈa"}}, "dictionary", "DICTIONARY_IPA_UNSUPPORTED"),
        ({"dictionary": {f"w{n}": "a" for n in range(1001)}}, "dictionary", "DICTIONARY_TOO_LONG"),
        ({"markup": "ssml", "input": "<emphasis>a</emphasis>"}, "input", "SSML_UNSUPPORTED"),
        ({"markup": "ssml", "input": "<sub alias='a'>b"}, "input", "SSML_INVALID"),
        ({"markup": "ssml", "input": "<speak>One sentence. And one that goes on"}, "input", "SSML_INVALID"),
    ],
)
async def test_invalid_fields_are_rejected_by_their_name_in_the_body(change: dict[str, Any], param: str, reason: str):
    async with http_serving(max_pending_text_chars=1000) as (at, client):
        answer = await client.post(
            SPEECH, content=json.dumps(HELLO | change), headers={"content-type": "application/json"}
        )
        error = answer.json()["error"]
        assert (answer.status_code, error["param"], error["code"]) == (400, param, reason)
        assert error["type"] == "invalid_request_error"
        assert error["allowed"] in error["message"]
        assert answer.headers["x-should-retry"] == "false"
        assert "retry-after" not in answer.headers
        assert at.engine.opened_streams <= 1, "only the engine detects unspeakable text"
        await at.check_serves()


@pytest.mark.parametrize(
    ("body", "content_type", "status", "reason"),
    [
        (b"", "application/json", 400, "MESSAGE_INVALID"),
        (b"[1]", "application/json", 400, "MESSAGE_INVALID"),
        (b'{"model": ', "application/json; charset=utf-8", 400, "MESSAGE_INVALID"),
        (b"\xff\xfe", "application/json", 400, "MESSAGE_INVALID"),
        (b"[" * 300_000, "application/json", 413, "BODY_TOO_LARGE"),
        (b"[" * 70_000, "application/json", 400, "MESSAGE_INVALID"),
        (json.dumps(HELLO).encode(), "text/plain", 415, "MEDIA_TYPE_UNSUPPORTED"),
        (json.dumps(HELLO).encode(), "", 415, "MEDIA_TYPE_UNSUPPORTED"),
    ],
)
async def test_bodies_that_are_not_a_request(body: bytes, content_type: str, status: int, reason: str):
    async with http_serving(max_pending_text_chars=1000) as (at, client):
        answer = await client.post(SPEECH, content=body, headers={"content-type": content_type} if content_type else {})
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, reason)
        await at.check_serves()


async def test_an_unknown_voice_or_model_is_not_found():
    async with http_serving() as (_, client):
        for field, reason in (("voice", "VOICE_NOT_FOUND"), ("model", "MODEL_NOT_FOUND")):
            answer = await client.post(SPEECH, json=HELLO | {field: "nobody"})
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["param"]) == (404, reason, field)


async def test_beyond_capacity_a_client_is_told_when_to_come_back():
    async with http_serving(SLOW, max_streams=1) as (at, client):
        async with client.stream("POST", SPEECH, json=HELLO | {"input": LONG}) as first:
            await anext(first.aiter_raw())
            answer = await client.post(SPEECH, json=HELLO)
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["type"]) == (429, "STREAMS_EXHAUSTED", "rate_limit_error")
            assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("1", "1000")
            assert answer.headers["x-should-retry"] == "true"
        await at.settled()


@pytest.mark.parametrize(
    ("script", "status", "reason", "retry"),
    [
        (Script(open_failure=EngineBusy("full")), 429, "ENGINE_BUSY", "true"),
        (Script(failure=EngineFailure("broken"), fail_after_chunks=0), 500, "ENGINE_FAILURE", "true"),
        (Script(failure=RuntimeError("secret words")), 500, "INTERNAL", "false"),
    ],
)
async def test_failures_before_any_audio_have_a_status(script: Script, status: int, reason: str, retry: str):
    async with http_serving(script) as (at, client):
        answer = await client.post(SPEECH, json=HELLO)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, reason)
        assert answer.headers["x-should-retry"] == retry
        assert "secret" not in answer.text
        await at.settled()


async def test_a_failure_after_audio_leaves_an_incomplete_response():
    script = Script(failure=EngineFailure("broken"), fail_after_chunks=1, first_hop_tokens=4)
    async with http_serving(script) as (at, client):
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post(SPEECH, json=HELLO)
        answer = await client.post(SPEECH, json=HELLO | {"stream_format": "sse"})
        last = json.loads(answer.text.strip().split("\n\n")[-1].removeprefix("data: "))
        assert (last["type"], last["error"]["code"]) == ("error", "ENGINE_FAILURE")
        await at.settled()


async def test_a_client_that_disconnects_cancels_the_engines_work_at_once():
    async with http_serving(SLOW) as (at, client):
        async with client.stream("POST", SPEECH, json=HELLO | {"input": LONG}) as answer:
            await anext(answer.aiter_raw())
            await answer.aclose()
        await at.settled()
        assert at.engine.cancelled_segments == 1
        made = at.engine.made_samples
        await at.check_serves()
        assert at.engine.made_samples == made + 12 * 960


async def test_a_client_that_does_not_read_loses_its_response_and_little_audio_is_made():
    async with http_serving(stall_timeout_s=0.3, send_queue_events=2) as (at, client):
        request = HELLO | {"input": LONG, "response_format": "pcm_f32le", "sample_rate_hz": 48_000}
        async with client.stream("POST", SPEECH, json=request):
            async with asyncio.timeout(10):
                await at.server.admission.wait_idle()
            # 5 MB, which the sockets on both sides of loopback hold
            assert at.engine.made_samples * 2 * 4 < 16e6
            assert at.engine.made_samples < len(LONG) * 960
        await at.check_serves()


async def test_a_body_that_does_not_arrive_is_not_waited_for():
    async with http_serving(stall_timeout_s=0.2) as (at, _):
        host, _, port = at.http.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST {SPEECH} HTTP/1.1\r\nhost: localhost\r\n"
        head += "content-type: application/json\r\ncontent-length: 100\r\n\r\n"
        writer.write(head.encode() + b"half of it")
        async with asyncio.timeout(5):
            answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"UPLOAD_STALLED" in answer
        await at.settled()


async def test_concurrent_requests_do_not_mix():
    async with http_serving(SLOW, max_streams=8) as (_, client):

        async def speak(seed: int) -> bytes:
            return (await client.post(SPEECH, json=HELLO | {"response_format": "pcm", "seed": seed})).content

        together = await asyncio.gather(*map(speak, range(8)))
        assert together == [await speak(seed) for seed in range(8)]
        assert len(set(together)) == 8


async def test_text_is_never_logged(caplog: pytest.LogCaptureFixture):
    caplog.set_level("DEBUG", "mynah.service")
    async with http_serving() as (_, client):
        await client.post(SPEECH, json=HELLO | {"input": "Confidential words."})
        await client.post(SPEECH, json=HELLO | {"input": "confidential!", "top_p": 7})
        await client.get("/v1/voices/confidential")
    assert "stream ended" in caplog.text
    assert "SAMPLING_OUT_OF_RANGE" in caplog.text
    assert "onfidential" not in caplog.text
