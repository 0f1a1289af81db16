"""Voice cloning: a clip from the microphone or a file, its check, consent and name; use and delete the voice."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.clips import speech, wav_bytes
from tests.ui.clips import noise, sine
from tests.ui.visitor import Visitor


@pytest.fixture
def cloner(visitor: Visitor) -> Visitor:
    visitor.open_tab("Voices")
    return visitor


def verdict(visitor: Visitor, kind: str) -> str:
    words = visitor.page.locator(f".verdict-text[data-verdict={kind}]")
    words.wait_for()
    return words.inner_text()


def clone(visitor: Visitor, name: str) -> None:
    visitor.page.locator("#voice-name").get_by_role("textbox").fill(name)
    visitor.page.get_by_label("The speaker agreed").check()
    visitor.button("Clone this voice").click()


def remove(visitor: Visitor, name: str) -> None:
    visitor.button(f"Delete {name}").click()
    visitor.button(f"Really delete {name}?").click()
    visitor.page.get_by_text(f"“{name}” was deleted.").wait_for()


def test_a_clip_becomes_a_voice_that_speaks_and_is_deleted(cloner: Visitor, clip: Path):
    cloner.upload(clip)
    assert verdict(cloner, "yes") == "Good."
    assert cloner.page.locator("[data-clip=length]").inner_text() == "12.0 s"
    clone(cloner, "Ada")
    cloner.page.get_by_text("“Ada” is ready").wait_for()
    cloner.button("Use Ada").click()
    assert cloner.page.locator("#voice-a option:checked").inner_text() == "Ada"
    cloner.speak("Good morning.")
    cloner.finished()
    voice = cloner.evaluate("mynah.player.recordings.a.resolved.voice")
    assert voice not in ("", "default")
    cloner.open_tab("Voices")
    remove(cloner, "Ada")
    cloner.page.locator(".voices strong", has_text="Ada").wait_for(state="detached")
    cloner.open_tab("Speak")
    cloner.button("Speak").click()
    assert "does not exist any more" in cloner.error("#voice-a")
    cloner.choose_voice("Built-in voice")
    cloner.speak("Good morning.")
    cloner.finished()
    assert cloner.evaluate("mynah.player.recordings.a.resolved.voice") == "default"


@pytest.mark.parametrize("kept", [False, True])
def test_a_recording_is_kept_where_it_is_asked(cloner: Visitor, clip: Path, kept: bool):
    cloner.upload(clip)
    cloner.page.locator("#keep-recording input").set_checked(kept)
    clone(cloner, "Grace")
    cloner.page.get_by_text("“Grace” is ready").wait_for()
    assert (cloner.page.get_by_text("The server keeps the recording with it.").count() == 1) is kept
    listed = cloner.evaluate("fetch('mynah/voices').then(answer => answer.json())")["voices"]
    assert [voice["recording_kept"] for voice in listed if voice["name"] == "Grace"] == [kept]
    remove(cloner, "Grace")


def test_the_microphone_records_a_clip(cloner: Visitor):
    cloner.button("Record").click()
    cloner.button("Stop recording (8 s)").wait_for()  # a busy browser loses some of its sound; 5 s must remain
    cloner.page.locator("#clip [data-do=record]").click()
    assert verdict(cloner, "perhaps").startswith("Usable. With 10 seconds or more")
    assert float(cloner.page.locator("[data-clip=length]").inner_text().split()[0]) > 5


def test_a_bad_clip_is_reported_at_once_and_the_server_agrees(cloner: Visitor, tmp_path: Path):
    short = tmp_path / "short.wav"
    short.write_bytes(wav_bytes(*speech(3.0)))
    cloner.upload(short)
    assert verdict(cloner, "no").startswith("Too short: 3.0 s")
    clone(cloner, "Brief")
    assert "more than 5 seconds" in cloner.error("#clip")
    cloner.expect_refusal()


def test_a_clip_without_speech_is_refused_by_the_server(cloner: Visitor, tmp_path: Path):
    hiss = tmp_path / "hiss.wav"
    hiss.write_bytes(noise(12.0))
    cloner.upload(hiss)
    verdict(cloner, "yes")
    clone(cloner, "Hiss")
    assert "too little speech" in cloner.error("#clip")
    cloner.expect_refusal()


def test_an_empty_file_is_reported_at_once(cloner: Visitor, tmp_path: Path):
    empty = tmp_path / "empty.wav"
    empty.write_bytes(b"")
    cloner.upload(empty)
    assert verdict(cloner, "no") == "The file is empty."
    clone(cloner, "Empty")
    assert "Record or choose" in cloner.error("#clip")
    cloner.expect_refusal()


def test_a_silent_clip_is_reported(cloner: Visitor, tmp_path: Path):
    silent = tmp_path / "silent.wav"
    silent.write_bytes(noise(8.0, amplitude=0.0002))
    cloner.upload(silent)
    assert verdict(cloner, "no").startswith("Almost silent")


def test_a_file_without_audio_has_an_error_message(cloner: Visitor, tmp_path: Path):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"not a recording" * 1000)
    cloner.upload(broken)
    assert "cannot read the file" in verdict(cloner, "perhaps")
    clone(cloner, "Broken")
    assert "cannot read this file" in cloner.error("#clip")
    cloner.expect_refusal()


def test_missing_clip_name_and_consent_are_reported_beside_their_fields(cloner: Visitor, clip: Path):
    cloner.button("Clone this voice").click()
    assert "Record or choose" in cloner.error("#clip")
    cloner.upload(clip)
    verdict(cloner, "yes")
    cloner.button("Clone this voice").click()
    assert "name of 1 to 80" in cloner.error("#voice-name")
    cloner.page.locator("#voice-name").get_by_role("textbox").fill("Ada")
    cloner.button("Clone this voice").click()
    assert "agreed" in cloner.error("#consent")
    assert cloner.page.locator(".field-error").count() == 1
    cloner.expect_refusal()


ABOUT_NEW = "one => import('./mynah/static/voice_words.js').then(words => words.aboutNew(one))"


@pytest.mark.parametrize(
    ("voice", "verdict", "words"),
    [
        ({"similarity": 0.9}, "yes", "much like"),
        ({"similarity": 0.75}, "perhaps", "somewhat like"),
        ({"similarity": 0.4}, "no", "another person"),
        ({"similarity": None, "similarity_skipped": "The server is busy."}, "yes", "The server is busy."),
        ({"kept": False}, "perhaps", "lost when the server stops"),
        ({"kept": True}, "", "keeps this voice"),
        ({"recording_kept": True}, "", "keeps the recording"),
        ({"warnings": [{"reason": "NOISY", "message": "Noise."}]}, "perhaps", "Noise."),
        ({"used_from_s": 15.0, "used_s": 9.5}, "", "9.5 s of the recording were used, from 15.0 s on."),
    ],
)
def test_a_new_voice_is_described_in_plain_words(visitor: Visitor, voice: dict[str, object], verdict: str, words: str):
    sentences = visitor.evaluate(ABOUT_NEW, {"name": "Ada", **voice})
    assert [found for found, sentence in sentences if words in sentence] == [verdict], sentences


def test_a_name_is_shown_as_text_only(cloner: Visitor, clip: Path):
    name = "<img src=x onerror=hacked=1>${window.hacked=1}{{value}}`"
    cloner.upload(clip)
    verdict(cloner, "yes")
    clone(cloner, name)
    verdict(cloner, "yes")
    cloner.page.locator(".voices strong", has_text=name).wait_for()
    assert not cloner.evaluate("'hacked' in window")
    remove(cloner, name)


@pytest.mark.parametrize("amplitude", [0.1, 0.5])
def test_loudness_follows_the_recommendation(cloner: Visitor, tmp_path: Path, amplitude: float):
    tone = tmp_path / "tone.wav"
    tone.write_bytes(sine(6.0, 997.0, amplitude))
    cloner.upload(tone)
    verdict(cloner, "perhaps")
    shown = float(cloner.page.locator("[data-clip=loudness]").inner_text().split()[0])
    assert shown == pytest.approx(20 * math.log10(amplitude) - 3.01, abs=0.15)  # BS.1770: 997 Hz at 0 dB is -3.01 LUFS
