"""Voices over a real socket: made, looked up, listed in pages, used, deleted, kept across restarts."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

import mynah
from engines.fake import Script
from mynah.client.transport import send
from mynah.v1 import voices_pb2
from tests.service.serving import REFERENCE, serving


async def test_a_voice_is_created_used_and_deleted():
    async with serving() as at:
        before = datetime.now(UTC).replace(microsecond=0)
        made = await at.client.voices.create("Anna", REFERENCE, consent=True)
        assert (made.name, made.built_in, made.reference_s) == ("Anna", False, 1.0)
        assert made.created is not None
        assert before <= made.created <= datetime.now(UTC)
        assert await at.client.voices.get(made.voice_id) == made
        assert [voice.voice_id for voice in await at.client.voices.list()] == sorted([made.voice_id, "default"])
        same = mynah.Sampling(seed=1)
        hers = [chunk.data async for chunk in at.client.synthesize("Hi.", voice=made.voice_id, sampling=same)]
        default = [chunk.data async for chunk in at.client.synthesize("Hi.", sampling=same)]
        assert hers != default
        await at.client.voices.delete(made.voice_id)
        for call in (at.client.voices.get, at.client.voices.delete):
            with pytest.raises(mynah.NotFound) as raised:
                await call(made.voice_id)
            assert (raised.value.reason, raised.value.value) == ("VOICE_NOT_FOUND", made.voice_id)


async def test_the_built_in_voice_is_listed_and_stays():
    async with serving() as at:
        (voice,) = await at.client.voices.list()
        assert (voice.voice_id, voice.built_in, voice.created) == ("default", True, None)
        with pytest.raises(mynah.WrongState) as raised:
            await at.client.voices.delete("default")
        assert raised.value.reason == "VOICE_BUILT_IN"


async def test_a_chosen_id_is_taken_once():
    async with serving() as at:
        assert (await at.client.voices.create("Anna", REFERENCE, consent=True, voice_id="anna")).voice_id == "anna"
        with pytest.raises(mynah.AlreadyExists) as raised:
            await at.client.voices.create("Other", REFERENCE, consent=True, voice_id="anna")
        assert (raised.value.reason, raised.value.field, raised.value.value) == ("VOICE_EXISTS", "voice_id", "anna")


async def test_two_uploads_of_one_id_at_once_make_one_voice():
    async with serving(Script(voice_s=0.05)) as at:
        both = [at.client.voices.create(name, REFERENCE, consent=True, voice_id="anna") for name in ("a", "b")]
        results = await asyncio.gather(*both, return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["AlreadyExists", "Voice"]


@pytest.mark.parametrize("page_size", [0, 1, 2, 5, 1000])
async def test_pages_give_everything_once(page_size: int):
    async with serving() as at:
        for number in range(4):
            await at.client.voices.create("Anna", REFERENCE, consent=True, voice_id=f"v{number}")
        listed = [voice.voice_id for voice in await at.client.voices.list(page_size=page_size)]
        assert listed == ["default", "v0", "v1", "v2", "v3"]
        page = await at.voices.ListVoices(voices_pb2.ListVoicesRequest(page_size=2))
        assert (len(page.voices), page.next_page_token != "") == (2, True)


async def test_a_file_and_its_bytes_make_the_same_voice(tmp_path: Path):
    file = tmp_path / "reference.wav"
    file.write_bytes(REFERENCE * 100)  # several pieces
    async with serving() as at:
        same = mynah.Sampling(seed=1)
        spoken = []
        for audio in (file, REFERENCE * 100):
            voice = await at.client.voices.create("Anna", audio, consent=True)
            chunks = at.client.synthesize("Hi.", voice=voice.voice_id, sampling=same)
            spoken.append(b"".join([chunk.data async for chunk in chunks]))
        assert spoken[0] == spoken[1]


async def test_voices_in_a_folder_outlive_the_server(tmp_path: Path):
    async with serving(voices_dir=tmp_path) as at:
        made = await at.client.voices.create("Anna", REFERENCE, consent=True)
    async with serving(voices_dir=tmp_path) as at:
        assert await at.client.voices.get(made.voice_id) == made


async def test_a_server_without_a_built_in_voice_refuses_the_default_voice():
    async with serving(default_voice=False) as at:
        with pytest.raises(mynah.NotFound) as raised:
            async with at.client.stream():
                pass
        assert raised.value.value == "default"
        assert await at.client.voices.list() == []


async def test_uploads_at_once_are_bounded():
    async with serving(Script(voice_s=0.2), max_uploads=1) as at:
        both = [at.client.voices.create(name, REFERENCE, consent=True) for name in ("a", "b")]
        results = await asyncio.gather(*both, return_exceptions=True)
        (refused,) = [result for result in results if isinstance(result, mynah.ServerBusy)]
        assert (refused.reason, refused.retryable) == ("UPLOADS_EXHAUSTED", True)
        assert len(await at.client.voices.list()) == 2


async def test_an_upload_that_stalls_is_ended():
    async with serving(stall_timeout_s=0.1) as at:
        call = at.voices.CreateVoice()
        await send(call, voices_pb2.CreateVoiceRequest(metadata=voices_pb2.NewVoice(name="A", consent=True)))
        assert (await call.code()).name == "DEADLINE_EXCEEDED"
        await at.settled()


async def test_a_client_that_vanishes_during_an_upload_leaves_nothing():
    async with serving() as at:
        call = at.voices.CreateVoice()
        await send(call, voices_pb2.CreateVoiceRequest(metadata=voices_pb2.NewVoice(name="A", consent=True)))
        call.cancel()
        await at.settled()
        assert len(await at.client.voices.list()) == 1


async def test_a_big_upload_that_is_refused_early_gets_the_reason():
    async with serving() as at:
        for _ in range(20):
            with pytest.raises(mynah.InvalidArgument) as raised:
                await at.client.voices.create("Anna", bytes(3_000_000), consent=False)
            assert raised.value.reason == "CONSENT_REQUIRED"
