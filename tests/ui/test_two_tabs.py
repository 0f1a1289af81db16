"""Two tabs of one browser at once: each speaks, stops and makes voices by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ui.visitor import Visitor

LONG = "This is a sentence that takes a while to speak. " * 80  # longer than a busy browser takes for its next step


@pytest.fixture
def second(visitor: Visitor) -> Iterator[Visitor]:
    tab = visitor.context.new_page()
    one = Visitor(tab, visitor.url)
    yield one
    one.leave()
    tab.close()


def test_one_stops_and_the_other_is_spoken_to_its_end(visitor: Visitor, second: Visitor):
    visitor.speak(LONG)
    second.speak("Good evening to you.")
    visitor.button("Stop").first.click()
    visitor.finished()
    second.finished()
    assert visitor.recording()["state"] == "stopped"
    assert second.recording()["state"] == "done"
    assert second.recording()["segments"]
    second.speak("Once more.")
    second.finished()
    assert second.recording()["state"] == "done"


def test_a_voice_that_one_makes_while_the_other_speaks_is_in_both_lists(visitor: Visitor, second: Visitor, clip: Path):
    visitor.speak(LONG)
    second.open_tab("Voices")
    second.upload(clip)
    second.page.locator("#voice-name").get_by_role("textbox").fill("Second")
    second.page.get_by_label("The speaker agreed").check()
    second.button("Clone this voice").click()
    second.page.get_by_text("“Second” is ready").wait_for()
    visitor.button("Stop").first.click()
    visitor.finished()
    visitor.page.reload()
    visitor.page.wait_for_selector("html[data-mynah=ready]")
    visitor.page.locator("#voice-a option", has_text="Second").wait_for(state="attached")
    second.button("Delete Second").click()
    second.button("Really delete Second?").click()
    second.page.get_by_text("“Second” was deleted.").wait_for()


def test_closing_one_leaves_the_other(visitor: Visitor):
    tab = visitor.context.new_page()
    closing = Visitor(tab, visitor.url)
    closing.speak(LONG)
    visitor.speak("Good evening to you.")
    tab.close()
    visitor.finished()
    assert visitor.recording()["state"] == "done"
