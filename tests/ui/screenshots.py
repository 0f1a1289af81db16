"""`make screenshots`: the page on a wide screen, in the dark and on a phone, as docs/page-*.png."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from tests.ui.clips import wav
from tests.ui.processes import ROOT, page_process, server_process
from tests.ui.visitor import CHROMIUM_FLAGS, Visitor

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 375, "height": 812}


def main() -> None:
    speaking = server_process("--model", "tiny")  # the shipped model, so that the pictures show speech
    with speaking as server, page_process("--server", server.address) as page, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM_FLAGS)
        _speaking(browser, page.address, "page-desktop", viewport=DESKTOP, device_scale_factor=1.5)
        _speaking(browser, page.address, "page-dark", viewport=DESKTOP, color_scheme="dark", device_scale_factor=1.5)
        phone: dict[str, Any] = {"viewport": PHONE, "device_scale_factor": 2, "has_touch": True}
        _speaking(browser, page.address, "page-phone", expert=False, **phone)
        _cloning(browser, page.address, "page-voices", viewport=DESKTOP, device_scale_factor=1.5)
        browser.close()


def _speaking(browser: Browser, url: str, name: str, *, expert: bool = True, **options: Any) -> None:
    """A complete recording, in the middle of its playback, with the figures for experts or without."""
    with Visitor.on(browser, url, **options) as visitor:
        if expert:
            visitor.expert()
            visitor.page.locator("#seed-a").get_by_role("textbox").fill("4")
        visitor.speak()
        visitor.finished()
        visitor.take().wait_for()
        visitor.wait("mynah.player.sound.position > 0.6 * mynah.player.shown.length_s")
        _save(visitor, name)


def _cloning(browser: Browser, url: str, name: str, **options: Any) -> None:
    with tempfile.TemporaryDirectory() as folder, Visitor.on(browser, url, **options) as visitor:
        clip = Path(folder) / "clip.wav"
        clip.write_bytes(wav(12.0))
        visitor.open_tab("Voices")
        visitor.upload(clip)
        visitor.page.locator(".verdict-text[data-verdict=yes]").wait_for()
        visitor.page.locator("#voice-name").get_by_role("textbox").fill("Ada")
        _save(visitor, name)


def _save(visitor: Visitor, name: str) -> None:
    path = ROOT / "docs" / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    visitor.page.mouse.move(0, 0)
    visitor.page.screenshot(path=path, full_page=True)
    print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
