"""Speaking: early sound, Stop, word-by-word text, seeds, comparison, download."""

from __future__ import annotations

import io
import json
import time
import wave
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest

from mynah.v1 import speech_pb2, speech_pb2_grpc
from tests.ui.processes import Process
from tests.ui.visitor import Visitor

SHORT = "Good morning. "
LONG = "One sentence to begin with. " + "Then another one that goes on for a good while, so that there is time. " * 4


def test_sound_is_scheduled_within_150_ms_of_the_first_chunk_and_the_audio_clock_runs(visitor: Visitor):
    """By the audio clock: how long a busy browser takes to handle a chunk is the machine's."""
    visitor.speak(LONG)
    first, again = visitor.evaluate(
        """async () => { const [context] = ear.contexts, first = context.currentTime;
        await new Promise(next => setTimeout(next, 200));
        return [first, context.currentTime]; }"""
    )
    assert visitor.evaluate("ear.contexts[0].state") == "running"
    assert again - first > 0.1
    visitor.wait("ear.level() > 0.001")
    arrival, start, wait_ms = visitor.evaluate("[ear.arrivals[0], ear.starts[0].at, ear.starts[0].wait_ms]")
    assert arrival <= start
    assert wait_ms < 150
    assert visitor.recording()["startDelay_ms"] > 0  # the device's own latency included
    visitor.finished()
    assert visitor.recording()["state"] == "done"


def test_chunks_are_scheduled_end_to_end(visitor: Visitor):
    visitor.speak(SHORT * 2)
    visitor.finished()
    recording, starts = visitor.recording(), visitor.evaluate("ear.starts")
    assert len(starts) == len(recording["chunks"]) > 1
    breaks = [later["when"] - (one["when"] + one["duration"]) for one, later in pairwise(starts)]
    assert sum(abs(gap) > 1e-6 for gap in breaks) == len(recording["underruns"])
    assert abs(sum(one["duration"] for one in starts) - recording["length_s"]) < 1e-6


def test_stop_is_silent_within_100_ms_and_ends_the_server_s_work(visitor: Visitor, server: Process):
    visitor.speak(LONG * 9)
    visitor.wait("ear.lastSound_s > 0")
    pressed_s = visitor.evaluate(
        """() => { const pressed_s = ear.contexts[0].currentTime; document.querySelector("#stop").click();
        return pressed_s; }"""
    )
    visitor.finished()
    visitor.wait(f"ear.contexts[0].currentTime > {pressed_s} + 0.5")
    assert pressed_s - 0.5 < visitor.evaluate("ear.lastSound_s") < pressed_s + 0.1
    recording = visitor.recording()
    assert recording["state"] == "stopped"
    streams_end(server.address, within_s=5)
    assert visitor.evaluate("ear.level()") == 0
    assert visitor.recording()["length_s"] == recording["length_s"]
    assert visitor.page.get_by_text("Stopped after").is_visible()


def streams_end(address: str, within_s: float) -> None:
    """Wait until the server has no open stream."""
    started_s = time.monotonic()
    with grpc.insecure_channel(address) as channel:
        speech = speech_pb2_grpc.SpeechStub(channel)
        while speech.GetServerInfo(speech_pb2.GetServerInfoRequest(), timeout=within_s).open_stream_count:
            assert time.monotonic() - started_s < within_s


def test_word_by_word_speech_starts_before_the_text_is_complete(visitor: Visitor):
    visitor.expert()
    visitor.page.get_by_label("Word by word").check()
    visitor.page.get_by_label("number input for Words per second").fill("10")
    visitor.page.get_by_label("number input for Words per second").blur()
    text = LONG * 3
    visitor.speak(text)
    assert visitor.page.locator(".transcript .caret").is_visible()
    sent, typed = visitor.evaluate("[mynah.player.recordings.a.sent, mynah.player.recordings.a.typed]")
    assert not typed
    assert text.startswith(sent)
    words = visitor.recording()["words"]
    assert abs((words[-1] - words[0]) - (len(words) - 1) / 10) < 0.5
    visitor.page.keyboard.press("Escape")
    visitor.finished()
    visitor.speak(SHORT)
    visitor.finished()
    assert visitor.evaluate("mynah.player.recordings.a.sent") == SHORT
    assert len(visitor.recording()["words"]) == len(SHORT.split())


def test_the_keyboard_speaks_and_stops(visitor: Visitor):
    text = LONG * 9  # so that it is still being made when the next key is pressed
    visitor.write(text)
    visitor.page.keyboard.press("Control+Enter")
    visitor.wait("mynah.player.recordings.a?.firstSound")
    assert visitor.evaluate("mynah.player.recordings.a.sent") == text
    visitor.page.keyboard.press("Escape")
    visitor.finished()
    assert visitor.recording()["state"] == "stopped"
    visitor.page.get_by_role("slider", name="Playback position").press("Home")
    visitor.wait("mynah.player.sound.playing")


def test_again_gives_the_same_speech_and_new_another(visitor: Visitor):
    visitor.speak(SHORT)
    visitor.finished()
    seed, first = visitor.recording()["seed"], visitor.samples()
    visitor.expert()
    visitor.press("Again")
    visitor.finished()
    assert (visitor.recording()["seed"], visitor.samples()) == (seed, first)
    visitor.press("Another take")
    visitor.finished()
    assert visitor.recording()["seed"] != seed
    assert visitor.samples() != first
    assert visitor.page.locator("[data-seed]").inner_text() == visitor.recording()["seed"]


def test_again_repeats_the_speech_under_another_load(visitor: Visitor):
    """The server's choice under load is replaced by one that differs from what it chooses when it is idle."""
    visitor.expert()
    respellings = visitor.page.locator("#respellings textarea")
    respellings.fill("morning = moor ning")
    respellings.blur()
    opened: list[dict[str, Any]] = []
    visitor.page.on("websocket", lambda socket: socket.on("framesent", lambda sent: opened.append(json.loads(sent))))
    visitor.speak(SHORT)
    visitor.finished()
    chosen = visitor.evaluate("mynah.player.recordings.a.resolved.schedule")
    crowded = "throughput" if chosen != "throughput" else "balanced"
    visitor.evaluate("name => { mynah.player.recordings.a.resolved.schedule = name; }", crowded)
    respellings.fill("")
    respellings.blur()
    visitor.press("Again")
    visitor.finished()
    first, again = [message for message in opened if message["type"] == "open"]
    assert not first.get("schedule")
    assert (again["schedule"], again["respellings"]) == (crowded, first["respellings"])
    assert visitor.evaluate("mynah.player.recordings.a.resolved.schedule") == crowded, "the server obeys"
    visitor.press("Another take")
    visitor.finished()
    assert not [message for message in opened if message["type"] == "open"][-1]["schedule"]


def test_speech_can_begin_with_a_clause(visitor: Visitor):
    text = "When the sun comes up tomorrow, we will walk. "
    visitor.expert()
    visitor.page.get_by_label("With a clause").check()
    visitor.speak(text)
    visitor.finished()
    assert len(visitor.recording()["segments"]) == 2
    visitor.page.get_by_label("With a sentence").check()
    visitor.speak(text)
    visitor.finished()
    assert len(visitor.recording()["segments"]) == 1


def test_two_settings_of_one_text_share_the_seed_and_can_be_switched(visitor: Visitor):
    visitor.expert()
    visitor.write(SHORT)
    # on random:tiny, one seed in four ends before B's limit; B has no seed of its own and gets A's
    visitor.page.locator("#seed-a").get_by_role("textbox").fill("1")
    visitor.open_tab("Settings B")
    visitor.page.locator("#max-speech-tokens-b input[type=number]").fill("20")
    visitor.page.locator("#max-speech-tokens-b input[type=number]").blur()
    visitor.button("Compare A and B").click()
    visitor.wait("mynah.player.recordings.b")
    visitor.finished("b")
    a, b = visitor.recording("a"), visitor.recording("b")
    assert a["seed"] == b["seed"]
    assert b["length_s"] == pytest.approx((1 + 20 + 3) * 0.04)
    assert a["length_s"] > b["length_s"]
    difference = visitor.page.locator(".difference").inner_text()
    assert difference == "A and B differ in Longest segment (A: 1000, B: 20)."
    length = visitor.page.locator("[data-figure=length]")
    assert [line[:2] for line in length.inner_text().splitlines()] == ["A ", "B "]
    visitor.button("A").click()
    assert visitor.button("A").get_attribute("aria-pressed") == "true"
    visitor.page.get_by_role("region", name="Player").get_by_role("button", name="Play").click()
    visitor.wait("mynah.player.sound.playing && ear.level() > 0.001")


def test_equal_settings_are_named_as_equal(visitor: Visitor):
    visitor.expert()
    visitor.write(SHORT)
    visitor.button("Compare A and B").click()
    visitor.page.get_by_text("A and B have the same settings").wait_for()
    visitor.button("Stop").first.click()
    visitor.finished()


def test_stop_during_playback_says_so(visitor: Visitor):
    visitor.speak(LONG)
    visitor.finished()
    visitor.take().get_by_role("button", name="Play").click()
    visitor.page.get_by_text("Playing …").wait_for()
    visitor.wait("mynah.player.sound.playing && (document.querySelector('#stop').click(), true)")
    assert visitor.page.locator(".player .state").inner_text().startswith("Stopped at ")


def saved(visitor: Visitor, label: str) -> tuple[str, bytes]:
    """Returns the name and the content of a download of the newest recording."""
    with visitor.page.expect_download() as download:
        visitor.take().get_by_role("button", name=f"Download as {label}", exact=True).click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def test_recordings_have_names_and_can_be_downloaded_and_played_again(visitor: Visitor):
    visitor.speak(SHORT)
    visitor.finished()
    name = visitor.take().get_by_label("Name of the recording")
    assert name.input_value() == "Good morning."
    name.fill("Greeting: one/two")
    filename, content = saved(visitor, "WAV")
    assert filename == "Greeting onetwo.wav"
    with wave.open(io.BytesIO(content)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (24_000, 1, 2)
        data = file.readframes(file.getnframes())
    played = visitor.samples()
    assert [int.from_bytes(data[i : i + 2], "little", signed=True) for i in range(0, len(data), 2)] == played
    for label, extension, start in (("MP3", "mp3", b"\xff"), ("FLAC", "flac", b"fLaC"), ("Opus", "ogg", b"OggS")):
        filename, content = saved(visitor, label)
        assert filename == f"Greeting onetwo.{extension}"
        assert content.startswith(start)
    visitor.speak("Another one. ")
    visitor.finished()
    assert visitor.page.locator(".takes li").count() == 2
    visitor.page.locator(".takes li").last.get_by_role("button", name="Play").click()
    visitor.wait("mynah.player.sound.playing && mynah.player.shown.sent === 'Good morning. '")


def test_a_voice_can_be_heard_before_it_is_used(visitor: Visitor):
    visitor.speak(SHORT)
    visitor.finished()
    listen, before = visitor.page.locator("#voice-a [data-do=listen]"), visitor.evaluate("ear.starts.length")
    listen.click()
    assert listen.inner_text() == "Stop"
    visitor.wait(f"ear.starts.length > {before}")
    visitor.wait("document.querySelector('#voice-a [data-do=listen]').textContent === 'Listen'")  # at its end
    assert visitor.page.locator(".takes li").count() == 1
    listen.click()
    listen.click()
    assert listen.inner_text() == "Listen"
    visitor.speak()
    visitor.finished()
    assert visitor.page.locator(".takes li").count() == 2


def test_the_text_the_view_and_the_colours_outlive_a_reload(visitor: Visitor):
    visitor.write("Remember me.")
    visitor.expert()
    dark = "document.body.classList.contains('dark')"
    before = visitor.evaluate(dark)
    visitor.button("Dark colours").click()
    assert visitor.evaluate(dark) != before
    visitor.page.reload()
    visitor.wait("document.querySelector('#text textarea')?.value === 'Remember me.'")
    visitor.page.locator("#settings-a").wait_for()
    assert visitor.evaluate(dark) != before
    visitor.speak()
    assert visitor.evaluate("mynah.player.recordings.a.sent") == "Remember me."


def test_examples_fill_the_text(visitor: Visitor):
    visitor.page.get_by_label("Example", exact=True).select_option("A phone call")
    assert "Your appointment" in visitor.page.get_by_label("Text", exact=True).input_value()
    visitor.speak()
    assert "Your appointment" in visitor.evaluate("mynah.player.recordings.a.sent")


def test_a_long_text_from_a_file_is_spoken_with_its_progress(visitor: Visitor, tmp_path: Path):
    text = "".join(f"This is sentence number {number} of a long story.\n" for number in range(400))
    file = tmp_path / "story.txt"
    file.write_bytes(text.replace("\n", "\r\n").encode())
    visitor.page.locator("[data-do=open]:enabled").wait_for()
    visitor.page.get_by_label("Text file").set_input_files(file)
    visitor.page.get_by_text("story.txt: 3,600 words, about 24 minutes of speech.", exact=True).wait_for()
    visitor.speak()
    assert visitor.evaluate("mynah.player.recordings.a.sent") == text
    visitor.wait("document.querySelector('.progress').value > 0")
    visitor.page.get_by_text("of the text").wait_for()
    assert visitor.evaluate("document.querySelector('.progress').value") < 1
    visitor.page.keyboard.press("Escape")
    visitor.finished()
    assert not visitor.page.locator(".progress").is_visible()


@pytest.mark.parametrize(
    ("content", "words"), [(b"\x89PNG\0\0", "picture.txt is not a text file."), (b"", "picture.txt is empty.")]
)
def test_a_file_that_is_no_text_is_refused(visitor: Visitor, tmp_path: Path, content: bytes, words: str):
    file = tmp_path / "picture.txt"
    file.write_bytes(content)
    before = visitor.page.get_by_label("Text", exact=True).input_value()
    visitor.page.locator("[data-do=open]:enabled").wait_for()
    visitor.page.get_by_label("Text file").set_input_files(file)
    visitor.page.get_by_text(words, exact=True).wait_for()
    assert visitor.page.get_by_label("Text", exact=True).input_value() == before
    visitor.page.locator("#example").select_option(label="A story")
    visitor.page.get_by_text(words, exact=True).wait_for(state="detached")  # it was about the text before


def test_the_speed_shortens_the_speech_and_changes_while_it_is_made(visitor: Visitor):
    speed = visitor.page.get_by_label("number input for Speed")
    speed.fill("2")
    speed.blur()
    visitor.speak(LONG * 6)
    visitor.wait("mynah.player.recordings.a?.firstSound")
    assert visitor.evaluate("mynah.player.recordings.a.request.speed") == 2
    speed.fill("0.5")
    speed.blur()
    visitor.finished()
    speeds = visitor.evaluate("mynah.player.recordings.a.segments.map((one) => one.speed)")
    assert speeds[0] == 2
    assert speeds[-1] == 0.5
    assert speeds == sorted(speeds, reverse=True), "each speed lasts until the next one"
    first, last = visitor.evaluate(
        "(({ segments, length_s }) => [segments[1].offset_s, length_s - segments.at(-1).offset_s].map("
        "(length, i) => length / [segments[0].tokens, segments.at(-1).tokens][i]))(mynah.player.recordings.a)"
    )
    assert (first, last) == (pytest.approx(0.02, rel=0.01), pytest.approx(0.08, rel=0.01))  # seconds per speech token
