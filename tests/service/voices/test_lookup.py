"""Voices by id, by name and by alias; errors name the voices that exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.errors import InvalidInput
from engines.fake import FakeEngine, fake_voice
from service.errors import NotFound
from service.voices.lookup import VoiceLookup
from service.voices.store import VoiceStore


async def store(tmp_path: Path, *names: str, ids: tuple[str, ...] = ()) -> VoiceStore:
    voices = VoiceStore([FakeEngine()], tmp_path)
    for number, name in enumerate(names):
        voice_id = ids[number] if ids else f"v{number}"
        await voices.add(fake_voice(name, name.encode()), voice_id)
    return voices


@pytest.mark.parametrize(
    ("asked", "expected"),
    [("v0", "v0"), ("Anna Lee", "v0"), ("anna lee", "v0"), ("Straße", "v1"), ("v2", "v2"), ("default", "default")],
)
async def test_an_id_or_a_name_finds_a_voice(asked: str, expected: str, tmp_path: Path):
    lookup = VoiceLookup(await store(tmp_path, "Anna Lee", "Straße", "v0"))
    assert (await lookup.get(asked)).voice_id == await lookup.resolve(asked) == expected


async def test_a_name_in_the_same_case_goes_before_others(tmp_path: Path):
    lookup = VoiceLookup(await store(tmp_path, "Anna", "ANNA"))
    assert await lookup.resolve("ANNA") == "v1"
    with pytest.raises(InvalidInput) as raised:
        await lookup.get("anna")
    assert (raised.value.reason, raised.value.allowed) == ("VOICE_NAME_AMBIGUOUS", "v0, v1")
    assert "v0, v1" in str(raised.value)


async def test_an_alias_is_the_default_voice_unless_a_voice_has_the_name(tmp_path: Path):
    voices = await store(tmp_path, "Nova")
    assert await VoiceLookup(voices, ("alloy", "nova")).resolve("alloy") == "default"
    assert await VoiceLookup(voices, ("alloy", "nova")).resolve("nova") == "v0"
    with pytest.raises(NotFound):
        await VoiceLookup(voices).get("alloy")


async def test_an_unknown_voice_is_refused_with_those_that_exist(tmp_path: Path):
    lookup = VoiceLookup(await store(tmp_path, "Anna", ids=("amy",)))
    with pytest.raises(NotFound) as missing:
        await lookup.get("bert")
    assert str(missing.value) == "There is no voice 'bert'; the server has default, amy."
    with pytest.raises(InvalidInput) as invalid:
        await lookup.get("Amy")
    assert (invalid.value.reason, invalid.value.allowed) == ("VOICE_ID_INVALID", "default, amy")
    assert "'amy' exists" in str(invalid.value)


async def test_a_long_list_is_cut(tmp_path: Path):
    lookup = VoiceLookup(await store(tmp_path, *(f"Voice {number}" for number in range(12))))
    with pytest.raises(NotFound) as missing:
        await lookup.get("bert")
    assert str(missing.value).endswith(" and 3 more voices.")


async def test_a_new_voice_whose_id_is_in_upper_case_learns_the_right_one(tmp_path: Path):
    with pytest.raises(InvalidInput) as raised:
        await (await store(tmp_path)).add(fake_voice("Anna"), "Anna")
    assert "Write it in lower case: 'anna'." in str(raised.value)
