"""Voices over HTTP: created from an upload, listed, used, deleted; the same store as over gRPC."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import mynah
from engines.fake import FakeEngine, fake_voice, tone
from service.audio.codecs import pcm_s16le
from service.voices.ids import DEFAULT_VOICE_ID
from service.voices.store import VoiceStore
from service.voices.stored_voice import stamped
from tests.clips import wav_bytes
from tests.service.http.clients import HELLO, SPEECH, http_serving
from tests.service.serving import REFERENCE

VOICES = "/v1/voices"
ANNA = {"name": "Anna", "consent": "true"}


async def create(client: httpx.AsyncClient, audio: bytes | None = REFERENCE, **fields: Any) -> httpx.Response:
    files = None if audio is None else {"audio": ("me.wav", audio, "audio/wav")}
    return await client.post(VOICES, data=fields, files=files or {})


async def test_a_voice_is_created_used_and_deleted():
    async with http_serving() as (at, client):
        response = await create(client, **ANNA, voice_id="anna")
        voice = response.json()
        assert response.status_code == 201
        assert (voice["voice_id"], voice["name"], voice["built_in"]) == ("anna", "Anna", False)
        assert (await client.get(f"{VOICES}/anna")).json() == voice
        assert [each.voice_id for each in await at.client.voices.list()] == ["anna", DEFAULT_VOICE_ID], "gRPC's too"
        assert (await client.post(SPEECH, json=HELLO | {"voice": "anna"})).status_code == 200
        assert (await client.delete(f"{VOICES}/anna")).status_code == 204
        gone = await client.get(f"{VOICES}/anna")
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "VOICE_NOT_FOUND")


async def test_lists_are_paginated():
    async with http_serving() as (_, client):
        for name in "abc":
            await create(client, **ANNA, voice_id=name)
        first = (await client.get(VOICES, params={"page_size": 3})).json()
        assert [voice["voice_id"] for voice in first["voices"]] == ["a", "b", "c"]
        rest = (await client.get(VOICES, params={"page_token": first["next_page_token"]})).json()
        assert [voice["voice_id"] for voice in rest["voices"]] == [DEFAULT_VOICE_ID]
        assert rest["next_page_token"] == ""


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("page_size=-1", "PAGE_SIZE_OUT_OF_RANGE"),
        ("page_size=x", "PAGE_SIZE_OUT_OF_RANGE"),
        ("page_size=99999999999", "PAGE_SIZE_OUT_OF_RANGE"),
        ("page_token=UP", "PAGE_TOKEN_INVALID"),
        ("order=name", "FIELD_UNKNOWN"),
        ("page_size=1&page_size=2", "FIELD_UNKNOWN"),
    ],
)
async def test_invalid_list_queries(query: str, reason: str):
    async with http_serving() as (_, client):
        answer = await client.get(f"{VOICES}?{query}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, reason)


@pytest.mark.parametrize(
    ("fields", "audio", "status", "param", "reason"),
    [
        ({"name": "Anna"}, REFERENCE, 400, "consent", "CONSENT_REQUIRED"),
        ({"name": "Anna", "consent": "false"}, REFERENCE, 400, "consent", "CONSENT_REQUIRED"),
        ({"name": "Anna", "consent": "yes"}, REFERENCE, 400, "consent", "CONSENT_REQUIRED"),
        ({"consent": "true"}, REFERENCE, 400, "name", "VOICE_NAME_INVALID"),
        ({**ANNA, "voice_id": "../etc"}, REFERENCE, 400, "voice_id", "VOICE_ID_INVALID"),
        ({**ANNA, "voice_id": "default"}, REFERENCE, 409, "voice_id", "VOICE_EXISTS"),
        ({**ANNA, "url": "http://x"}, REFERENCE, 400, "body", "FIELD_UNKNOWN"),
        (ANNA, b"", 400, "audio", "AUDIO_EMPTY"),
        (ANNA, b"broken", 400, "audio", "AUDIO_NOT_DECODABLE"),
        (ANNA, b"short", 400, "audio", "AUDIO_TOO_SHORT"),
        (ANNA, bytes(10_001), 400, "audio", "AUDIO_TOO_LARGE"),
        (ANNA, bytes(100_000), 413, "", "BODY_TOO_LARGE"),
    ],
)
async def test_invalid_uploads(fields: dict[str, str], audio: bytes, status: int, param: str, reason: str):
    async with http_serving(max_upload_bytes=10_000) as (at, client):
        answer = await create(client, audio, **fields)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"] or "", error["code"]) == (status, param, reason)
        await at.settled()
        assert len((await client.get(VOICES)).json()["voices"]) == 1


async def answer_to(address: str, request: bytes) -> tuple[str, dict[str, Any]]:
    """The status line and the error that answer the first bytes of a request, which is never finished."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = int(head.lower().split("content-length: ")[1].split()[0])
    error: dict[str, Any] = json.loads(await reader.readexactly(length))["error"]
    writer.close()
    return head.splitlines()[0], error


def beginning(stated_bytes: int, audio: bytes) -> bytes:
    """The begin of a form whose headers state a length."""
    head = f"POST {VOICES} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {stated_bytes}\r\n"
    head += "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    part = '--x\r\nContent-Disposition: form-data; name="audio"; filename="me.wav"\r\n\r\n'
    return (head + (part if audio else "")).encode() + audio


async def test_a_body_that_states_that_it_is_too_long_is_refused_in_seconds_before_it_is_sent():
    async with http_serving() as (at, _):
        assert at.http is not None
        status, error = await answer_to(at.http, beginning(53_000_000, b""))
    assert "413" in status
    assert error["code"] == "BODY_TOO_LARGE"
    assert "at most 20000000 bytes (20.0 MB) and 120 s. 10 to 20 s of one speaker are enough" in error["message"]


async def test_ten_minutes_are_refused_by_their_first_bytes():
    ten_minutes = wav_bytes(np.zeros(600 * 4000, np.float32), 4000)
    async with http_serving() as (at, _):
        assert at.http is not None
        status, error = await answer_to(at.http, beginning(len(ten_minutes), ten_minutes[:5000]))
    assert "400" in status
    assert (error["code"], error["param"]) == ("AUDIO_TOO_LONG", "audio")
    assert "600 s long; it must be more than 5 s and at most 120 s" in error["message"]


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"{}", "application/json", 415),
        (b"name=Anna", "application/x-www-form-urlencoded", 415),
        (b"no form at all", "multipart/form-data", 400),
        (b"no form at all", "multipart/form-data; boundary=x", 400),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\n\r\n--x--", "multipart/form-data; boundary=x", 400),
    ],
)
async def test_bodies_that_are_not_a_form(content: bytes, content_type: str, status: int):
    async with http_serving() as (at, client):
        answer = await client.post(VOICES, content=content, headers={"content-type": content_type})
        assert answer.status_code == status
        assert answer.json()["error"]["code"] in {"MEDIA_TYPE_UNSUPPORTED", "MESSAGE_INVALID", "VOICE_NAME_INVALID"}
        await at.settled()


async def test_the_built_in_voice_cannot_be_deleted():
    async with http_serving() as (_, client):
        answer = await client.delete(f"{VOICES}/{DEFAULT_VOICE_ID}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "VOICE_BUILT_IN")


async def test_a_voice_of_another_model_is_a_conflict_on_every_surface(tmp_path: Path):
    foreign = stamped(replace(fake_voice("Anna"), metadata={"model": "tiny"}))
    (tmp_path / "anna.safetensors").write_bytes(foreign.to_bytes())
    async with http_serving(voices_dir=tmp_path) as (at, client):
        assert [each["voice_id"] for each in (await client.get(VOICES)).json()["voices"]] == [DEFAULT_VOICE_ID]
        spoken = await client.post(SPEECH, json={"input": "Hello.", "voice": "anna"})
        for answer in (await client.get(f"{VOICES}/anna"), spoken):
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "VOICE_OF_ANOTHER_MODEL")
        with pytest.raises(mynah.WrongState) as raised:
            async with at.client.stream(voice="anna"):
                pass
        assert (raised.value.reason, raised.value.retryable) == ("VOICE_OF_ANOTHER_MODEL", False)
        assert (await client.delete(f"{VOICES}/anna")).status_code == 204
        assert (await create(client, **ANNA, voice_id="anna")).status_code == 201
        assert (await client.post(SPEECH, json={"input": "Hello.", "voice": "anna"})).status_code == 200


async def test_a_voice_of_another_model_with_its_recording_is_spoken_everywhere(tmp_path: Path):
    turbos = replace(fake_voice("Anna"), metadata={"model": "turbo"})
    await VoiceStore([FakeEngine()], tmp_path).add(turbos, "anna", REFERENCE)
    async with http_serving(voices_dir=tmp_path) as (at, client):
        listed = (await client.get(VOICES)).json()["voices"]
        assert [(voice["voice_id"], voice["recording_kept"]) for voice in listed] == [
            ("anna", True),
            ("default", False),
        ]
        request = HELLO | {"voice": "anna", "response_format": "pcm", "seed": 5}
        spoken = (await client.post(SPEECH, json=request)).content
        made = await at.engine.make_voice(REFERENCE, name="Anna")
        assert spoken == pcm_s16le(tone("Hello there.", made, 5, 12 * 960))


async def test_the_form_asks_for_the_recording_to_be_kept(tmp_path: Path):
    async with http_serving(voices_dir=tmp_path) as (_, client):
        answer = await create(client, **ANNA, voice_id="anna", keep_recording="true")
        assert (answer.status_code, answer.json()["recording_kept"]) == (201, True)
        assert [path.read_bytes() for path in (tmp_path / "recordings").iterdir()] == [REFERENCE]
        wrong = await create(client, **ANNA, keep_recording="perhaps")
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "keep_recording")
