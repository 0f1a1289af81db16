"""The store of voices: ids that cannot leave the folder, files that survive a restart, bounds."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engines.errors import InvalidInput
from engines.fake import fake_voice
from service.errors import AlreadyExists, NoRoom, NotFound, OutOfOrder
from service.voice_store import StoredVoice, VoiceStore

ANNA = fake_voice("Anna", b"anna")
BERT = fake_voice("Bert", b"bert")


def files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*")]


async def test_what_was_added_is_found_after_a_restart(tmp_path: Path):
    first = VoiceStore(fake_voice("default"), tmp_path / "voices")
    anna, bert = await first.add(ANNA, None), await first.add(BERT, "bert")
    again = VoiceStore(fake_voice("default"), tmp_path / "voices")
    found, more = again.page("", 10)
    assert [stored.voice_id for stored in found] == sorted([anna.voice_id, "bert", "default"])
    assert not more
    kept = again.get(anna.voice_id)
    assert (kept.voice.key, kept.voice.name, kept.created) == (ANNA.key, "Anna", anna.created)
    assert bert.reference_s == 1.0


async def test_what_was_removed_stays_removed_and_its_id_is_free(tmp_path: Path):
    store = VoiceStore(None, tmp_path)
    await store.add(ANNA, "anna")
    await store.remove("anna")
    assert files(tmp_path) == []
    with pytest.raises(NotFound):
        store.get("anna")
    await store.add(BERT, "anna")
    assert VoiceStore(None, tmp_path).get("anna").voice.key == BERT.key


async def test_an_id_is_taken_while_its_file_is_written_or_deleted(tmp_path: Path):
    store = VoiceStore(None, tmp_path)
    results = await asyncio.gather(store.add(ANNA, "x"), store.add(BERT, "x"), return_exceptions=True)
    assert [type(result) for result in results] == [StoredVoice, AlreadyExists]
    results = await asyncio.gather(store.remove("x"), store.add(BERT, "x"), return_exceptions=True)
    assert [type(result) for result in results] == [type(None), AlreadyExists]
    assert files(tmp_path) == []


@pytest.mark.parametrize("voice_id", ["", "..", "../x", "a/b", "A", "ä", "-a", "_a", "a" * 65, "a\n", "a.b", "a\0"])
async def test_what_is_not_formed_like_an_id_reaches_no_file(voice_id: str, tmp_path: Path):
    store = VoiceStore(None, tmp_path / "voices")
    for call in (store.get, store.must_have_room):
        with pytest.raises(InvalidInput) as raised:
            call(voice_id)
        assert (raised.value.reason, raised.value.field) == ("VOICE_ID_INVALID", "voice_id")
    with pytest.raises(InvalidInput):
        await store.add(ANNA, voice_id)
    with pytest.raises(InvalidInput):
        await store.remove(voice_id)
    assert files(tmp_path) == ["voices"]


async def test_taken_ids_are_refused():
    store = VoiceStore(None)
    await store.add(ANNA, "anna")
    for taken in ("anna", "default"):
        with pytest.raises(AlreadyExists) as raised:
            await store.add(BERT, taken)
        assert raised.value.reason == "VOICE_EXISTS"


async def test_the_built_in_voice_stays():
    store = VoiceStore(fake_voice("default"))
    assert store.get("default").built_in
    with pytest.raises(OutOfOrder) as raised:
        await store.remove("default")
    assert raised.value.reason == "VOICE_BUILT_IN"


async def test_the_number_of_voices_is_bounded_and_the_built_in_one_does_not_count():
    store = VoiceStore(fake_voice("default"), max_voices=2)
    await store.add(ANNA, None)
    await store.add(ANNA, "second")
    with pytest.raises(NoRoom) as raised:
        await store.add(BERT, None)
    assert (raised.value.reason, raised.value.allowed) == ("VOICES_FULL", "2 voices")
    await store.remove("second")
    await store.add(BERT, None)


async def test_pages_cover_everything_once_whatever_their_size():
    store = VoiceStore(fake_voice("default"))
    for number in range(7):
        await store.add(ANNA, f"voice-{number}")
    for size in (1, 3, 8, 100):
        seen: list[str] = []
        more = True
        while more:
            found, more = store.page(seen[-1] if seen else "", size)
            assert len(found) <= size
            seen += [stored.voice_id for stored in found]
        assert seen == ["default", *(f"voice-{number}" for number in range(7))]


@pytest.mark.parametrize("name", ["broken.safetensors", "default.safetensors", "Bad Name.safetensors"])
def test_a_file_that_is_no_voice_is_named_before_anything_is_served(name: str, tmp_path: Path):
    (tmp_path / name).write_bytes(b"not a voice")
    with pytest.raises(InvalidInput) as raised:
        VoiceStore(None, tmp_path)
    assert name in str(raised.value)


def test_a_half_written_file_is_no_voice_and_no_error(tmp_path: Path):
    (tmp_path / "anna.safetensors.partial").write_bytes(b"half")
    assert VoiceStore(None, tmp_path).page("", 10) == ([], False)
