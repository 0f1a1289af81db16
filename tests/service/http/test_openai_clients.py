"""What OpenAI's clients and compatible ones ask for beside /v1/audio/speech, and how they name voices."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import pytest

from service.access.keys import ApiKey, digest, write_keys
from service.http.speech_request import VOICE_ALIASES
from tests.service.http.clients import HELLO, SPEECH, http_serving
from tests.service.serving import REFERENCE

WAV = HELLO | {"response_format": "wav"}


async def test_open_webui_finds_models_and_voices():
    async with http_serving() as (at, client):
        await at.client.voices.create("Anna", REFERENCE, consent=True, voice_id="anna")
        assert (await client.get("/v1/audio/models")).json() == {"models": [{"id": "fake", "name": "fake"}]}
        voices = (await client.get("/v1/audio/voices?model=tts-1")).json()
        assert voices == {"voices": [{"id": "anna", "name": "Anna"}, {"id": "default", "name": "default"}]}


async def test_all_voices_are_listed_beyond_one_page(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("service.http.rest.MAX_PAGE_SIZE", 2)
    async with http_serving() as (at, client):
        for number in range(4):
            await at.client.voices.create("Anna", REFERENCE, consent=True, voice_id=f"anna{number}")
        voices = (await client.get("/v1/audio/voices")).json()["voices"]
        assert [voice["id"] for voice in voices] == ["anna0", "anna1", "anna2", "anna3", "default"]


@pytest.mark.parametrize("path", ["/v1/audio/models", "/v1/audio/voices", "/v1/models/tts-1"])
async def test_lists_need_a_key_where_keys_are_configured(path: str, tmp_path: Path):
    write_keys(tmp_path / "keys.json", [ApiKey("anna", digest("secret"))])
    async with http_serving(api_keys=tmp_path / "keys.json") as (_, client):
        assert (await client.get(path)).status_code == 401
        assert (await client.get(path, headers={"authorization": "Bearer secret"})).status_code == 200


@pytest.mark.parametrize("name", ["fake", "tts-1", "tts-1-hd", "gpt-4o-mini-tts"])
async def test_a_model_that_speech_accepts_can_be_retrieved(name: str):
    async with http_serving() as (_, client):
        assert (await client.get(f"/v1/models/{name}")).json()["id"] == name
        missing = (await client.get("/v1/models/whisper-1")).json()["error"]
        assert (missing["code"], missing["param"]) == ("MODEL_NOT_FOUND", "model")
        assert name in missing["message"]


async def test_a_seed_comes_with_the_schedule_that_repeats_its_bytes():
    async with http_serving() as (at, client):
        chosen = await client.post(SPEECH, json=HELLO | {"seed": 7})
        named = await client.post(SPEECH, json=HELLO | {"schedule": "offline"})
        neither = await client.post(SPEECH, json=HELLO)
        unknown = await client.post(SPEECH, json=HELLO | {"schedule": "fast"})
        assert chosen.headers["x-mynah-schedule"] == at.engine.script.schedule
        assert named.headers["x-mynah-schedule"] == "offline"
        assert "x-mynah-schedule" not in neither.headers
        assert unknown.status_code == 400
        assert (unknown.json()["error"]["code"], unknown.json()["error"]["param"]) == ("SCHEDULE_UNKNOWN", "schedule")
        await at.settled()


@pytest.mark.parametrize("name", VOICE_ALIASES)
async def test_openais_voices_are_the_default_voice(name: str):
    async with http_serving() as (at, client):
        answer = await client.post(SPEECH, json=HELLO | {"voice": name})
        assert (answer.status_code, answer.headers["x-mynah-voice"]) == (200, "default")
        assert answer.headers["x-mynah-voice-replaced"] == name
        await at.settled()


async def test_a_voice_of_that_name_goes_before_the_default_voice():
    async with http_serving() as (at, client):
        await at.client.voices.create("Nova", REFERENCE, consent=True, voice_id="n1")
        answer = await client.post(SPEECH, json=HELLO | {"voice": "nova"})
        assert answer.headers["x-mynah-voice"] == "n1"
        assert "x-mynah-voice-replaced" not in answer.headers


async def test_the_names_can_be_turned_off():
    async with http_serving(openai_voices=False) as (_, client):
        error = (await client.post(SPEECH, json=HELLO | {"voice": "alloy"})).json()["error"]
        assert (error["code"], error["param"], error["allowed"]) == ("VOICE_NOT_FOUND", "voice", "default")


@pytest.mark.parametrize("missing", [{"voice": None}, {"model": None}, {"voice": None, "model": None}])
async def test_voice_and_model_may_be_absent(missing: dict[str, None]):
    async with http_serving() as (_, client):
        for body in (HELLO | missing, {name: value for name, value in HELLO.items() if name not in missing}):
            answer = await client.post(SPEECH, json=body)
            assert (answer.status_code, answer.headers["x-mynah-voice"]) == (200, "default")
            assert "x-mynah-voice-replaced" not in answer.headers


async def test_an_unknown_voice_is_refused_in_the_words_of_http():
    async with http_serving() as (at, client):
        await at.client.voices.create("Anna", REFERENCE, consent=True, voice_id="anna")
        for name, status in (("bert", 404), ("Bert!", 400)):
            answer = await client.post(SPEECH, json=HELLO | {"voice": name})
            error = answer.json()["error"]
            assert (answer.status_code, error["param"], error["allowed"]) == (status, "voice", "default, anna")
            assert "ListVoices" not in answer.text
            assert "voice_id" not in answer.text


async def test_a_whole_wav_has_its_length():
    async with http_serving() as (at, client):
        answer = await client.post(SPEECH, json=WAV | {"stream": False})
        assert int(answer.headers["content-length"]) == len(answer.content)
        with wave.open(io.BytesIO(answer.content)) as file:
            assert file.getnframes() == 12 * 960
            assert len(file.readframes(file.getnframes())) == 2 * 12 * 960
        assert int.from_bytes(answer.content[4:8], "little") == len(answer.content) - 8
        streamed = await client.post(SPEECH, json=WAV | {"stream": True, "seed": 1})
        assert "content-length" not in streamed.headers
        whole = await client.post(SPEECH, json=WAV | {"stream": False, "seed": 1})
        assert whole.content[44:] == streamed.content[44:]
        await at.settled()


async def test_a_whole_answer_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("service.http.speech.MAX_WHOLE_BYTES", 10_000)
    async with http_serving() as (at, client):
        error = (await client.post(SPEECH, json=WAV | {"stream": False})).json()["error"]
        assert (error["code"], error["param"]) == ("ANSWER_TOO_LONG", "stream")
        await at.check_serves()


async def test_a_page_may_send_the_headers_of_openais_client():
    async with http_serving(cors_origin=("https://app.example",)) as (_, client):
        asked = {
            "origin": "https://app.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type,x-stainless-lang,x-stainless-retry-count",
        }
        preflight = await client.options(SPEECH, headers=asked)
        assert preflight.status_code == 200
        assert "x-stainless-lang" in preflight.headers["access-control-allow-headers"]
        answer = await client.post(SPEECH, json=HELLO, headers={"origin": "https://app.example"})
        assert "x-mynah-voice" in answer.headers["access-control-expose-headers"]
