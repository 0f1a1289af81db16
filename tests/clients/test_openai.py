"""The unmodified `openai` client against /v1: speech in every format, streaming, events and errors."""

from __future__ import annotations

import base64
import io
import json
import wave
from contextlib import ExitStack

import openai
import pytest

from tests.clients.conftest import Addresses

# The first bytes of each format. PCM has none; its length is tested: 12 letters of 40 ms.
BEGINNINGS = {"mp3": b"\xff\xf3", "opus": b"OggS", "aac": b"\xff\xf1", "flac": b"fLaC", "wav": b"RIFF", "pcm": b""}


@pytest.fixture
def client(server: Addresses) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://{server.http}/v1", api_key="unused", max_retries=0, timeout=20)


@pytest.mark.parametrize("response_format", list(BEGINNINGS))
def test_every_format_of_the_client(client: openai.OpenAI, response_format: str):
    spoken = client.audio.speech.create(
        model="gpt-4o-mini-tts", voice="default", input="Hello there.", response_format=response_format
    )
    assert spoken.content.startswith(BEGINNINGS[response_format])
    if response_format == "pcm":
        assert len(spoken.content) == 2 * 12 * 960


def test_audio_is_streamed(client: openai.OpenAI):
    text = "This is a longer sentence, so that its audio comes in several chunks, one after the other."
    with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="default", input=text, response_format="pcm", extra_body={"seed": 3}
    ) as spoken:
        pieces = list(spoken.iter_bytes(1000))
    assert len(pieces) > 10
    assert sum(map(len, pieces)) == 2 * len(text) * 960


async def test_the_asynchronous_client(server: Addresses):
    async with openai.AsyncOpenAI(base_url=f"http://{server.http}/v1", api_key="unused") as client:
        spoken = await client.audio.speech.create(model="tts-1", voice="default", input="Hello.", speed=1.0)
        assert spoken.content.startswith(BEGINNINGS["mp3"])


def test_events(client: openai.OpenAI):
    with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="default", input="Hello there.", response_format="pcm", stream_format="sse"
    ) as spoken:
        lines = [line.removeprefix("data: ") for line in spoken.iter_lines() if line]
    events = [json.loads(line) for line in lines]
    assert sum(len(base64.b64decode(event["audio"])) for event in events[:-1]) == 2 * 12 * 960
    assert events[-1]["type"] == "speech.audio.done"


def test_openais_own_voice_and_a_whole_wav(client: openai.OpenAI):
    answer = client.audio.speech.with_raw_response.create(
        model="tts-1", voice="alloy", input="Hello there.", response_format="wav", extra_body={"stream": False}
    )
    assert answer.headers["x-mynah-voice-replaced"] == "alloy"
    with wave.open(io.BytesIO(answer.content)) as file:
        assert file.getnframes() == 12 * 960


def test_models(client: openai.OpenAI):
    assert [model.id for model in client.models.list()] == ["fake"]
    assert client.models.retrieve("fake").owned_by == "mynah"
    assert client.models.retrieve("tts-1").id == "tts-1"


def test_errors_have_reason_and_field(client: openai.OpenAI):
    with pytest.raises(openai.NotFoundError) as raised:
        client.audio.speech.create(model="tts-1", voice="nobody", input="Hello.")
    assert (raised.value.code, raised.value.param) == ("VOICE_NOT_FOUND", "voice")
    with pytest.raises(openai.BadRequestError) as bad:
        client.audio.speech.create(model="tts-1", voice="default", input="Hello.", speed=4.0)
    assert (bad.value.code, bad.value.param, bad.value.type) == ("SPEED_OUT_OF_RANGE", "speed", "invalid_request_error")


def test_the_client_retries_when_the_server_is_full(client: openai.OpenAI):
    with ExitStack() as holding:
        for _ in range(3):
            held = client.audio.speech.with_streaming_response.create(
                model="tts-1", voice="default", input="word " * 80
            )
            holding.enter_context(held)
        with pytest.raises(openai.RateLimitError) as raised:
            client.audio.speech.create(model="tts-1", voice="default", input="Hello.")
        assert raised.value.code == "STREAMS_EXHAUSTED"
        assert raised.value.response.headers["retry-after"] == "1"
    patient = client.with_options(max_retries=3)
    assert patient.audio.speech.create(model="tts-1", voice="default", input="Hello.").content
