"""How near a new voice comes: measured by speaking with it, left out with a reason, never in anyone's way."""

from __future__ import annotations

import pytest

from engines.fake import Script
from tests.service.serving import serving

AUDIO = b"speech" * 500


async def test_a_voice_says_how_near_it_comes_and_the_stream_is_closed():
    async with serving(Script(similarity=0.8123)) as at:
        voice = await at.client.voices.create("Anna", AUDIO, consent=True)
        assert (voice.similarity, voice.similarity_skipped) == (0.812, "")
        assert at.engine.opened_streams == 1
        assert at.at_rest
        assert (await at.client.voices.get(voice.voice_id)) == voice


async def test_random_weights_have_no_speaker():
    async with serving() as at:
        voice = await at.client.voices.create("Anna", AUDIO, consent=True)
        assert voice.similarity is None
        assert "random" in voice.similarity_skipped
        assert at.engine.opened_streams == 0


@pytest.mark.parametrize("capacity", [1, 2])
async def test_the_last_slots_are_for_callers(capacity: int):
    async with serving(Script(similarity=0.8), max_streams=capacity) as at:
        with at.server.admission.stream():
            voice = await at.client.voices.create("Anna", AUDIO, consent=True)
        assert voice.similarity is None
        assert "busy" in voice.similarity_skipped
        assert at.engine.opened_streams == 0


async def test_an_engine_that_fails_makes_the_voice_all_the_same():
    from engines.errors import EngineFailure

    async with serving(Script(similarity=0.8, failure=EngineFailure("T3 failed."))) as at:
        voice = await at.client.voices.create("Anna", AUDIO, consent=True)
        assert voice.similarity is None
        assert "failed" in voice.similarity_skipped
        assert at.at_rest


async def test_the_report_and_whether_a_voice_is_kept_reach_the_client(tmp_path):
    async with serving(voices_dir=tmp_path) as at:
        voice = await at.client.voices.create("Anna", b"noisy" * 500, consent=True, normalize_loudness=False)
        assert (voice.used_from_s, voice.used_s, voice.speech_share, voice.speech_to_noise_db) == (0.5, 6.0, 0.9, 5.0)
        assert [warning.reason for warning in voice.warnings] == ["NOISY"]
        assert voice.kept
        stored = await at.server._voices.get(voice.voice_id)
        assert stored.voice.metadata["levelled"] == "False"
        assert (await at.client.voices.get("default")).kept
    async with serving() as at:
        assert not (await at.client.voices.create("Anna", AUDIO, consent=True)).kept
        assert (await at.client.info()).tags == at.engine.info.tags != ()


async def test_a_recording_is_kept_only_if_that_is_asked_for(tmp_path):
    async with serving(voices_dir=tmp_path) as at:
        plain = await at.client.voices.create("Anna", AUDIO, consent=True, voice_id="anna")
        assert not plain.recording_kept
        assert not (tmp_path / "recordings").exists()
        kept = await at.client.voices.create("Bert", AUDIO, consent=True, voice_id="bert", keep_recording=True)
        assert kept.recording_kept
        (recording,) = (tmp_path / "recordings").iterdir()
        assert recording.read_bytes() == AUDIO
        assert [voice.recording_kept for voice in await at.client.voices.list()] == [False, True, False]
        await at.client.voices.delete("Bert")
        assert list((tmp_path / "recordings").iterdir()) == []
