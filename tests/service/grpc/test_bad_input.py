"""Bad input of every kind over a real socket ends with a typed error that names field, value and limit."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc.aio
import numpy as np
import pytest

from engines.errors import EngineBusy, EngineFailure
from engines.fake import Script
from mynah.client import errors
from mynah.client.transport import half_close, send
from mynah.v1 import speech_pb2, voices_pb2
from tests.clips import wav_bytes
from tests.service.serving import (
    CANCEL,
    REFERENCE,
    Request,
    Serving,
    converse,
    error_of,
    flush,
    opening,
    refused,
    serving,
    text,
)

NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture
async def at() -> AsyncIterator[Serving]:
    async with serving() as at:
        yield at


@pytest.mark.parametrize(
    ("settings", "field", "value"),
    [
        ({"temperature": NAN}, "sampling.temperature", "nan"),
        ({"temperature": INFINITY}, "sampling.temperature", "inf"),
        ({"temperature": -0.1}, "sampling.temperature", "-0.1"),
        ({"temperature": 5.1}, "sampling.temperature", "5.1"),
        ({"top_k": -1}, "sampling.top_k", "-1"),
        ({"top_k": 7000}, "sampling.top_k", "7000"),
        ({"top_p": 0.0}, "sampling.top_p", "0.0"),
        ({"top_p": 1.5}, "sampling.top_p", "1.5"),
        ({"top_p": NAN}, "sampling.top_p", "nan"),
        ({"repetition_penalty": 0.0}, "sampling.repetition_penalty", "0.0"),
        ({"repetition_penalty": INFINITY}, "sampling.repetition_penalty", "inf"),
        ({"max_speech_token_count": 0}, "sampling.max_speech_token_count", "0"),
        ({"max_speech_token_count": 1001}, "sampling.max_speech_token_count", "1001"),
    ],
)
async def test_sampling_out_of_range(at: Serving, settings: dict[str, float], field: str, value: str):
    error = await refused(at, opening(sampling=settings))
    assert isinstance(error, errors.InvalidArgument)
    assert (error.reason, error.field, error.value) == ("SAMPLING_OUT_OF_RANGE", field, value)
    assert error.allowed
    assert not error.retryable


@pytest.mark.parametrize(
    ("settings", "kind", "reason", "value"),
    [
        ({"voice_id": "nobody"}, errors.NotFound, "VOICE_NOT_FOUND", "nobody"),
        ({"voice_id": ""}, errors.InvalidArgument, "VOICE_ID_INVALID", "''"),
        ({"voice_id": "../../etc/passwd"}, errors.InvalidArgument, "VOICE_ID_INVALID", "'../../etc/passwd'"),
        ({"audio_format": 99}, errors.InvalidArgument, "AUDIO_FORMAT_UNKNOWN", "99"),
        ({"sample_rate_hz": 0}, errors.InvalidArgument, "SAMPLE_RATE_UNSUPPORTED", "0"),
        ({"text": {"markup": 9}}, errors.InvalidArgument, "MARKUP_UNKNOWN", "9"),
        ({"text": {"unspeakable_text": 9}}, errors.InvalidArgument, "UNSPEAKABLE_TEXT_UNKNOWN", "9"),
        ({"sample_rate_hz": 11026}, errors.InvalidArgument, "SAMPLE_RATE_UNSUPPORTED", "11026"),
    ],
)
async def test_invalid_settings_are_refused(
    at: Serving, settings: dict[str, object], kind: type[errors.MynahError], reason: str, value: str
):
    error = await refused(at, opening(**settings))
    assert type(error) is kind
    assert (error.reason, error.value) == (reason, value)
    assert error.field
    assert error.allowed
    await check_synthesize_refuses(at, opening(**settings).open.settings, reason)


async def check_synthesize_refuses(at: Serving, settings: speech_pb2.SpeechSettings, reason: str) -> None:
    call = at.speech.Synthesize(speech_pb2.SynthesizeRequest(settings=settings, text="Hello."))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call.read()
    assert error_of(raised.value).reason == reason


@pytest.mark.parametrize(
    ("requests", "kind", "reason"),
    [
        ([], errors.WrongState, "STREAM_NOT_OPEN"),
        ([text("Hello.")], errors.WrongState, "STREAM_NOT_OPEN"),
        ([flush(1)], errors.WrongState, "STREAM_NOT_OPEN"),
        ([CANCEL], errors.WrongState, "STREAM_NOT_OPEN"),
        ([Request()], errors.InvalidArgument, "MESSAGE_INVALID"),
        ([opening(), opening()], errors.WrongState, "STREAM_ALREADY_OPEN"),
        ([opening(), Request()], errors.InvalidArgument, "MESSAGE_INVALID"),
        ([opening(), flush(0)], errors.InvalidArgument, "FLUSH_ID_INVALID"),
        ([opening(), flush(2**63)], errors.InvalidArgument, "FLUSH_ID_INVALID"),
        ([opening(), flush(2), flush(2)], errors.InvalidArgument, "FLUSH_ID_REUSED"),
        ([opening(), flush(2), CANCEL, flush(1)], errors.InvalidArgument, "FLUSH_ID_REUSED"),
    ],
)
async def test_messages_out_of_order(at: Serving, requests: list[Request], kind: type[errors.MynahError], reason: str):
    error = await refused(at, *requests)
    assert type(error) is kind
    assert error.reason == reason
    assert error.field
    assert error.allowed


@pytest.mark.parametrize("opened_first", [False, True])
async def test_bytes_that_do_not_decode_are_refused(at: Serving, opened_first: bool):
    method = at.channel.stream_stream("/mynah.v1.Speech/StreamSpeech", request_serializer=bytes)
    call = method()
    if opened_first:
        await call.write(opening().SerializeToString())
        await call.read()
    await call.write(b"\x0a\xff\xff\xff")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call.read()
    error = error_of(raised.value)
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "MESSAGE_INVALID")
    await at.check_serves()


async def test_text_beyond_the_limit():
    async with serving(max_pending_text_chars=1000) as at:
        error = await refused(at, opening(), text("x" * 1001))
        assert isinstance(error, errors.ServerBusy)
        assert not error.retryable
        assert (error.reason, error.field, error.value) == ("TEXT_BACKLOG_FULL", "text.content", "1001 chars")
        assert error.allowed == "at most 1000 chars waiting"
        with pytest.raises(errors.InvalidArgument) as raised:
            _ = [chunk async for chunk in at.client.synthesize("x" * 1001)]
        assert (raised.value.reason, raised.value.value) == ("TEXT_TOO_LONG", "1001 chars")
        assert raised.value.allowed == "at most 1000 chars"
        await at.check_serves()


@pytest.mark.parametrize("blank", ["", " ", "\n\t ", "..."])
async def test_a_whole_text_with_nothing_to_speak(at: Serving, blank: str):
    with pytest.raises(errors.InvalidArgument) as raised:
        _ = [chunk async for chunk in at.client.synthesize(blank)]
    assert (raised.value.reason, raised.value.field) == ("TEXT_EMPTY", "text")
    await at.check_serves()


@pytest.mark.parametrize("blank", ["", " ", "\n\t "])
async def test_blank_fragments_are_fine(at: Serving, blank: str):
    answers = await converse(at, opening(), text(blank), flush(1), text(blank))
    assert [answer.WhichOneof("event") for answer in answers] == ["opened", "flushed"]


async def test_streams_beyond_the_limit_are_refused_at_once():
    async with serving(max_streams=1) as at:
        async with at.client.stream():
            with pytest.raises(errors.ServerBusy) as raised:
                async with at.client.stream():
                    pass
            assert (raised.value.reason, raised.value.retryable) == ("STREAMS_EXHAUSTED", True)
            assert raised.value.retry_after_s == 1.0
            with pytest.raises(errors.ServerBusy):
                _ = [chunk async for chunk in at.client.synthesize("Hello.")]
        await at.settled()
        await at.check_serves()


@pytest.mark.parametrize(
    ("failure", "kind", "reason"),
    [
        (EngineFailure("the device is gone"), errors.ServerError, "ENGINE_FAILURE"),
        (EngineBusy("no blocks left"), errors.ServerBusy, "ENGINE_BUSY"),
    ],
)
@pytest.mark.parametrize("when", ["open_failure", "failure"])
async def test_an_engine_that_fails(failure: Exception, kind: type[errors.MynahError], reason: str, when: str):
    async with serving(Script(**{when: failure})) as at:
        with pytest.raises(kind) as raised:
            await converse(at, opening(), text("Hello."))
        assert (raised.value.reason, raised.value.retryable) == (reason, True)
        assert at.at_rest


async def test_an_unexpected_exception_is_not_quoted_to_the_client(caplog: pytest.LogCaptureFixture):
    async with serving(Script(failure=KeyError("Secret words."))) as at:
        with pytest.raises(errors.ServerError) as raised:
            await converse(at, opening(), text("Secret words."))
        assert raised.value.reason == "INTERNAL"
        assert "Secret" not in str(raised.value)
        assert at.at_rest
    assert "KeyError" in caplog.text
    assert "_fail_if_scripted" in caplog.text  # where it happened
    assert "Secret" not in caplog.text


Part = voices_pb2.CreateVoiceRequest


def new_voice(name: str = "Anna", *, consent: bool = True, **more: str) -> Part:
    return Part(metadata=voices_pb2.NewVoice(name=name, consent=consent, **more))


def audio(data: bytes = REFERENCE) -> Part:
    return Part(audio_chunk=data)


TEN_MINUTES = wav_bytes(np.zeros(600 * 4000, np.float32), 4000)


async def test_ten_minutes_are_refused_by_their_first_bytes_in_seconds():
    """The client has neither sent the rest nor said that there is none."""
    async with serving() as at:
        call = at.voices.CreateVoice()
        await send(call, new_voice())
        await send(call, audio(TEN_MINUTES[:5000]))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
    error = error_of(raised.value)
    assert (error.reason, error.value) == ("AUDIO_TOO_LONG", "600 s")
    assert "more than 5 s and at most 120 s" in str(error)


@pytest.mark.parametrize(
    ("parts", "code", "reason"),
    [
        ([], "FAILED_PRECONDITION", "UPLOAD_OUT_OF_ORDER"),
        ([audio()], "FAILED_PRECONDITION", "UPLOAD_OUT_OF_ORDER"),
        ([new_voice(), new_voice()], "FAILED_PRECONDITION", "UPLOAD_OUT_OF_ORDER"),
        ([Part()], "INVALID_ARGUMENT", "MESSAGE_INVALID"),
        ([new_voice(), Part()], "INVALID_ARGUMENT", "MESSAGE_INVALID"),
        ([new_voice()], "INVALID_ARGUMENT", "AUDIO_EMPTY"),
        ([new_voice(), audio(b"")], "INVALID_ARGUMENT", "AUDIO_EMPTY"),
        ([new_voice(), audio(b"short")], "INVALID_ARGUMENT", "AUDIO_TOO_SHORT"),
        ([new_voice(), audio(b"broken" * 1000)], "INVALID_ARGUMENT", "AUDIO_NOT_DECODABLE"),
        ([new_voice(), *[audio(bytes(6000))] * 2], "INVALID_ARGUMENT", "AUDIO_TOO_LARGE"),
        ([new_voice(), audio(TEN_MINUTES[:5000])], "INVALID_ARGUMENT", "AUDIO_TOO_LONG"),
        ([new_voice(""), audio()], "INVALID_ARGUMENT", "VOICE_NAME_INVALID"),
        ([new_voice("  "), audio()], "INVALID_ARGUMENT", "VOICE_NAME_INVALID"),
        ([new_voice("x" * 81), audio()], "INVALID_ARGUMENT", "VOICE_NAME_INVALID"),
        ([new_voice("a\nb"), audio()], "INVALID_ARGUMENT", "VOICE_NAME_INVALID"),
        ([new_voice(consent=False), audio()], "INVALID_ARGUMENT", "CONSENT_REQUIRED"),
        ([new_voice(voice_id="No!"), audio()], "INVALID_ARGUMENT", "VOICE_ID_INVALID"),
        ([new_voice(voice_id="default"), audio()], "ALREADY_EXISTS", "VOICE_EXISTS"),
    ],
)
async def test_invalid_uploads_are_refused(parts: list[Part], code: str, reason: str):
    async with serving(max_upload_bytes=10_000) as at:
        error = await upload_error(at, parts)
        assert (error.code, error.reason) == (code, reason)
        assert error.field
        assert error.allowed or error.field == "message"
        await at.check_serves()
        assert [voice.voice_id for voice in await at.client.voices.list()] == ["default"]


async def upload_error(at: Serving, parts: list[Part]) -> errors.MynahError:
    call = at.voices.CreateVoice()
    for part in parts:
        if not await send(call, part):
            break
    await half_close(call)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return error_of(raised.value)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (voices_pb2.ListVoicesRequest(page_size=-1), "PAGE_SIZE_OUT_OF_RANGE"),
        (voices_pb2.ListVoicesRequest(page_size=1001), "PAGE_SIZE_OUT_OF_RANGE"),
        (voices_pb2.ListVoicesRequest(page_token="?"), "PAGE_TOKEN_INVALID"),
    ],
)
async def test_invalid_pages_are_refused(at: Serving, request_: voices_pb2.ListVoicesRequest, reason: str):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await at.voices.ListVoices(request_)
    assert error_of(raised.value).reason == reason
