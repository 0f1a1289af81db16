"""Words on the page, of the shipped model: the one that is spoken is marked, and subtitles are offered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.ui.processes import page_process, server_process
from tests.ui.visitor import Visitor

TEXT = "Good morning 😀 to you. The train leaves now."
WORDS = ["Good", "morning", "to", "you", "The", "train", "leaves", "now"]


@pytest.fixture(scope="module")
def timed(browser: Browser) -> Iterator[Visitor]:
    """A visitor of the page of a server that gives word times."""
    with (
        server_process("--model", "tiny") as server,
        page_process("--server", server.address) as page,
        Visitor.on(browser, page.address) as visitor,
    ):
        visitor.speak(TEXT)
        visitor.finished()
        yield visitor


def test_every_word_has_its_place_in_the_text_and_in_the_sound(timed: Visitor):
    timed_words = timed.evaluate("mynah.player.recordings.a.timed")
    sent = timed.evaluate("mynah.player.recordings.a.sent")
    utf16 = sent.encode("utf-16-le")
    written = [utf16[2 * word["from"] : 2 * word["to"]].decode("utf-16-le") for word in timed_words]
    assert written == WORDS
    length_s = timed.evaluate("mynah.player.recordings.a.length_s")
    assert all(0 <= word["start_s"] < word["end_s"] <= length_s for word in timed_words)


def test_the_word_that_is_spoken_is_marked(timed: Visitor):
    marked = timed.evaluate(
        """() => {
          const player = mynah.player, seen = [];
          for (const word of player.recordings.a.timed) {
            player.shown = player.audible = player.recordings.a;
            Object.defineProperty(player.sound, "position", { get: () => word.start_s + 0.01, configurable: true });
            player.draw();
            seen.push(document.querySelector(".transcript .word")?.textContent);
          }
          delete player.sound.position;
          return seen;
        }"""
    )
    assert marked == WORDS


@pytest.mark.parametrize("name", ["SRT", "VTT"])
def test_subtitles_can_be_downloaded(name: str, timed: Visitor):
    with timed.page.expect_download() as started:
        timed.page.get_by_role("button", name=f"Download subtitles as {name}").first.click()
    text = started.value.path().read_text()
    assert started.value.suggested_filename.endswith(f".{name.lower()}")
    assert text.startswith("1\n00:00:0" if name == "SRT" else "WEBVTT\n\n00:00:0")
    assert text.count(" --> ") == 2
    assert "Good morning 😀 to you.\n" in text
    assert "The train leaves now.\n" in text


def test_subtitles_have_no_marks_of_markdown(timed: Visitor):
    text = timed.evaluate(
        """async () => {
          const { Recording } = await import("./mynah/static/player/recording.js");
          const { subtitles } = await import("./mynah/static/player/subtitles.js");
          const recording = new Recording("a", { text: "" });
          recording.addText("Oh 😀. **See** [it](x.org)!");
          const spans = [[0, 2], [5, 7], [8, 9], [11, 19]].map(([written_start, written_end]) =>
            ({ written_start, written_end, spoken_start: written_start, spoken_end: written_start }));
          const event = { segment_index: 1, offset_samples: 0, text: "**See** [it](x.org)!", spoken_spans: spans };
          recording.startSegment(event);
          const words = [[2, 5], [9, 11]].map(([start_char, end_char]) =>
            ({ start_char, end_char, start_samples: start_char, end_samples: end_char }));
          recording.addWords({ segment_index: 1, words });
          return subtitles(recording, "srt");
        }"""
    )
    assert text == "1\n00:00:00,000 --> 00:00:00,000\nSee it!\n\n"
