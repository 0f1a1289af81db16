"""Controls of what only some models have: they appear where the model has it, and stand at its defaults."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser

from tests.ui.processes import SERVER_PYTHON, Process, page_process, running_process
from tests.ui.visitor import Visitor

KNOBS = ("cfg-weight", "exaggeration", "min-p")


@pytest.fixture(scope="module")
def multilingual_url() -> Iterator[str]:
    with page_of() as address:
        yield address


@contextmanager
def page_of(*models: str) -> Iterator[str]:
    """The page of a server of these models of tests/ui/multilingual_server.py."""
    command = [str(SERVER_PYTHON), "-m", "tests.ui.multilingual_server"]
    command += ["--voices-dir", "memory", "--grace-s", "0", "--max-streams", "4"]
    command += [part for model in models for part in ("--model", model)]
    with (
        running_process(command, r"listening on (\S+)", "serving after") as server,
        page_process("--server", server.address) as page,
    ):
        yield page.address


def slider(visitor: Visitor, name: str) -> float:
    return float(visitor.page.locator(f"#{name} input[type=number]").input_value())


def test_a_model_of_english_alone_has_no_such_controls(visitor: Visitor, server: Process):
    visitor.expert()
    visitor.wait("window.mynahServer?.up")
    assert not visitor.page.locator("#language-field").is_visible()
    assert not visitor.page.locator("#model-field").is_visible(), "there is one model"
    assert [visitor.page.locator(f"#{name}-a").count() for name in KNOBS] == [0, 0, 0]
    assert (slider(visitor, "top-p-a"), slider(visitor, "top-k-a")) == (0.95, 1000)


def test_what_is_chosen_reaches_the_stream(browser: Browser, multilingual_url: str):
    with Visitor.on(browser, multilingual_url) as visitor:
        visitor.expert()
        visitor.page.locator("#language-field").wait_for()
        assert visitor.page.locator("#language option").count() == 23
        visitor.page.get_by_label("Language").select_option(label="German")
        for name, value in zip(KNOBS, ("0.3", "0.7", "0.1"), strict=True):
            visitor.page.locator(f"#{name}-a input").fill(value)
        visitor.speak("Guten Tag.")
        visitor.finished()
        opened = visitor.evaluate("mynah.player.recordings.a.resolved")
        assert (opened["language"], opened["cfg_weight"], opened["exaggeration"]) == ("de", 0.3, 0.7)
        visitor.page.reload()
        visitor.page.locator("#language-field").wait_for()
        assert visitor.page.get_by_label("Language").input_value() == "de"


def test_continuity_is_off_until_it_is_switched_on(visitor: Visitor):
    visitor.expert()
    switch = visitor.page.locator("#continuity-a input")
    switch.wait_for()
    for wished in (False, True):
        switch.set_checked(wished)
        visitor.speak("Good morning.")
        visitor.finished()
        assert visitor.evaluate("mynah.player.recordings.a.resolved.continuity") is wished
    visitor.page.locator("#settings-a").get_by_role("button", name="Back to defaults").click()
    visitor.wait("!document.querySelector('#continuity-a input').checked")


def test_a_server_without_continuity_has_no_switch(browser: Browser, multilingual_url: str):
    with Visitor.on(browser, multilingual_url) as visitor:
        visitor.expert()
        visitor.page.locator("#cfg-weight-a").wait_for()
        assert visitor.page.locator("#continuity-a").count() == 0


def test_sliders_stand_at_the_models_defaults_and_go_back_to_them(browser: Browser, multilingual_url: str):
    with Visitor.on(browser, multilingual_url) as visitor:
        visitor.expert()
        top_p, top_k = (f"document.querySelector('#{name}-a input[type=number]').value" for name in ("top-p", "top-k"))
        at_defaults = f"{top_p} === '1' && {top_k} === '0'"
        visitor.wait(at_defaults)
        visitor.page.locator("#top-p-a input[type=number]").fill("0.5")
        visitor.page.locator("#cfg-weight-a input").fill("1.5")
        visitor.page.locator("#settings-a").get_by_role("button", name="Back to defaults").click()
        visitor.wait(at_defaults)
        assert visitor.page.locator("#cfg-weight-a output").inner_text() == "0.5"


def test_a_model_is_chosen_where_there_are_several_and_its_controls_come_with_it(browser: Browser):
    with page_of("plain", "multi") as url, Visitor.on(browser, url) as visitor:
        visitor.expert()
        visitor.page.locator("#model-field").wait_for()
        assert visitor.page.locator("#model option").all_inner_texts() == ["plain", "multi"]
        assert visitor.page.locator("#cfg-weight-a").count() == 0
        assert not visitor.page.locator("#language-field").is_visible()
        visitor.page.get_by_label("Model", exact=True).select_option("multi")
        visitor.page.locator("#language-field").wait_for()
        visitor.page.locator("#cfg-weight-a input").fill("0.3")
        visitor.speak("Hello there.")
        visitor.finished()
        opened = visitor.evaluate("mynah.player.recordings.a.resolved")
        assert (opened["model"], opened["cfg_weight"]) == ("multi", 0.3)
        visitor.page.reload()
        visitor.page.locator("#language-field").wait_for()
        assert visitor.page.get_by_label("Model", exact=True).input_value() == "multi"
        visitor.page.get_by_label("Model", exact=True).select_option("plain")
        visitor.page.locator("#language-field").wait_for(state="hidden")
        assert visitor.page.locator("#cfg-weight-a").count() == 0


def test_a_language_that_the_server_lacks_something_for_is_shown_and_not_offered(browser: Browser):
    with page_of("lacking") as url, Visitor.on(browser, url) as visitor:
        visitor.expert()
        visitor.page.locator("#language-field").wait_for()
        hebrew = visitor.page.locator("#language option[value=he]")
        assert hebrew.inner_text() == "Hebrew (the server lacks dicta-onnx)"
        assert hebrew.is_disabled()
        assert visitor.page.locator("#language option:disabled").count() == 1
