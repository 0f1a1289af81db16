"""The displays: figures, timeline, waveform, spectrogram; tags, settings and their reset; errors beside their field."""

from __future__ import annotations

import pytest

from tests.ui.visitor import Visitor

SHORT = "Good morning."


def painted(visitor: Visitor, selector: str) -> int:
    """Returns the number of colours in a canvas."""
    script = """selector => { const canvas = document.querySelector(selector);
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return new Set(new Uint32Array(data.buffer)).size; }"""
    colours: int = visitor.evaluate(script, selector)
    return colours


def test_figures_and_drawings_show_a_recording(visitor: Visitor):
    visitor.expert()
    before = painted(visitor, ".timeline")
    assert not visitor.page.locator(".spectrum").is_visible()
    visitor.speak(SHORT)
    visitor.finished()
    recording = visitor.recording()
    places = "[...document.querySelectorAll('[data-figure]')]"
    figures = dict(visitor.evaluate(f"{places}.map(place => [place.dataset.figure, place.textContent])"))
    assert figures["tokens"] == str(recording["tokens"])
    assert abs(recording["tokens"] * 0.04 - recording["length_s"]) < 1e-6
    assert figures["chunks"] == str(len(recording["chunks"]))
    assert figures["windows"] == str(recording["windows"]) == str(len(recording["chunks"]))
    assert all(one["window"]["decode_s"] > 0 and one["window"]["queue_s"] >= 0 for one in recording["chunks"])
    assert figures["ttfa"].endswith("s")
    assert float(figures["rtf"]) > 0
    assert painted(visitor, ".timeline") > before + 5
    assert painted(visitor, ".wave canvas") > 3
    assert visitor.page.locator(".spectrum").is_visible()
    assert painted(visitor, ".spectrum canvas") > 50
    label = visitor.page.locator(".timeline").get_attribute("aria-label")
    assert label is not None
    assert f"{len(recording['chunks'])} chunks" in label
    assert "".join(visitor.page.locator(".transcript span").all_inner_texts()) == SHORT


def test_the_waveform_grows_as_it_arrives(visitor: Visitor):
    visitor.speak("One sentence here. " * 8)  # many chunks, so that a busy machine draws several of them
    seen = visitor.evaluate(
        """async () => { const seen = new Set();
        while (mynah.player.live) {
          seen.add(mynah.player.shown.peaks?.bars.filter(one => one !== null).length);
          await new Promise(requestAnimationFrame);
        }
        return seen.size; }"""
    )
    assert seen > 3


TAGS = """document.dispatchEvent(new CustomEvent("mynah-server", {
    detail: { ...window.mynahServer, tags: ["[laugh]", "[clear throat]"] } }))"""


def test_a_tag_is_inserted_at_the_cursor(visitor: Visitor):
    assert visitor.button("clear throat").count() == 0  # this model has no tags
    visitor.write("Well. No.")
    visitor.evaluate(TAGS)
    visitor.evaluate("document.querySelector('#text textarea').setSelectionRange(5, 5)")
    visitor.button("clear throat").click()
    assert visitor.page.get_by_label("Text", exact=True).input_value() == "Well. [clear throat] No."
    visitor.speak()
    assert visitor.evaluate("mynah.player.recordings.a.sent") == "Well. [clear throat] No."


def test_settings_reach_the_server_and_go_back_to_their_defaults(visitor: Visitor):
    visitor.expert()
    number = visitor.page.locator("#max-speech-tokens-a input[type=number]")
    number.fill("30")
    number.blur()
    visitor.page.locator("#seed-a").get_by_role("textbox").fill("18446744073709551615")
    visitor.speak(SHORT)
    visitor.finished()
    recording = visitor.recording()
    assert recording["length_s"] == pytest.approx((1 + 30 + 3) * 0.04)
    assert recording["seed"] == "18446744073709551615"
    visitor.button("Back to defaults").first.click()
    visitor.wait("document.querySelector('#max-speech-tokens-a input[type=number]').value === '1000'")
    assert visitor.page.locator("#seed-a").get_by_role("textbox").input_value() == ""


def test_a_value_set_as_soon_as_a_tab_shows_stays(visitor: Visitor):
    visitor.evaluate(
        """() => new MutationObserver((_, observer) => {
          const input = document.querySelector("#temperature-b input[type=number]");
          if (!input?.checkVisibility({ visibilityProperty: true })) return;
          observer.disconnect();
          input.value = "0.5";
          input.dispatchEvent(new Event("input", { bubbles: true }));
          window.set_ms = performance.now();
        }).observe(document, { subtree: true, childList: true, attributes: true })"""
    )
    visitor.expert()
    visitor.open_tab("Settings B")
    visitor.wait("performance.now() - window.set_ms > 500")
    assert visitor.page.locator("#temperature-b input[type=number]").input_value() == "0.5"


def test_an_empty_text_is_reported_beside_the_text(visitor: Visitor):
    visitor.write("  ")
    visitor.button("Speak").click()
    assert "no text to speak" in visitor.error("#text")
    assert visitor.page.get_by_label("Text", exact=True).get_attribute("aria-invalid") == "true"
    visitor.speak(SHORT)
    assert visitor.page.locator(".field-error").count() == 0


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("#seed-a", "abc", "Seed is 'abc'; it must be a whole number."),
        ("#seed-a", "-1", "Seed is -1; this is out of range."),
    ],
)
def test_a_wrong_setting_is_reported_beside_it(visitor: Visitor, field: str, value: str, words: str):
    visitor.expert()
    visitor.page.locator(f"{field} input, {field} textarea").first.fill(value)
    visitor.page.locator(f"{field} input, {field} textarea").first.press("Enter")
    visitor.write(SHORT)
    visitor.button("Speak").click()
    assert visitor.error(field) == words
    visitor.finished()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nginx", "Respellings, line 1 is 'nginx'; it must be word = respelling."),
        ("nginx = /ɛn/", "The pronunciation of 'nginx' is '/ɛn/', which is phonetic;"),
    ],
)
def test_a_wrong_respelling_is_reported_beside_them(visitor: Visitor, line: str, words: str):
    visitor.expert()
    visitor.page.locator("#respellings textarea").fill(line)
    visitor.page.locator("#respellings textarea").blur()
    visitor.write(SHORT)
    visitor.button("Speak").click()
    assert visitor.error("#respellings").startswith(words)
    visitor.finished()


def test_random_weights_are_announced(visitor: Visitor):
    assert "noise" in visitor.page.get_by_role("note").inner_text()
    assert visitor.page.locator(".pill").inner_text() == "Ready"
    assert "tiny on cpu" in str(visitor.page.locator(".pill").get_attribute("title"))
    running = visitor.page.locator(".running")
    assert not running.is_visible()
    visitor.expert()  # a phone shows no titles
    assert "T3 on torch" in running.inner_text()
    assert "S3Gen on torch" in running.inner_text()
