"""One server, one page and one browser window for all tests; each test loads the page again.

The tests run in the environment of `make test-ui`; elsewhere they are not collected.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

if importlib.util.find_spec("gradio") is None or importlib.util.find_spec("playwright") is None:
    collect_ignore_glob = ["*"]
else:
    import pytest
    from playwright.sync_api import Browser, Page, sync_playwright

    from tests.clips import speech, wav_bytes
    from tests.ui.processes import Process, page_process, server_process
    from tests.ui.visitor import CHROMIUM_FLAGS, Visitor, window

    @pytest.fixture(scope="session")
    def server() -> Iterator[Process]:
        with server_process() as running:
            yield running

    @pytest.fixture(scope="session")
    def page_url(server: Process) -> Iterator[str]:
        with page_process("--server", server.address) as running:
            yield running.address

    @pytest.fixture(scope="session")
    def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
        spoken = tmp_path_factory.mktemp("microphone") / "spoken.wav"
        spoken.write_bytes(wav_bytes(*speech(12.0)))
        flags = [*CHROMIUM_FLAGS, f"--use-file-for-fake-audio-capture={spoken}"]
        with sync_playwright() as playwright:
            running = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=flags)
            yield running
            running.close()

    @pytest.fixture(scope="session")
    def shared_window(browser: Browser) -> Iterator[Page]:
        """A window with a warm cache: the page loads in a third of the time."""
        with window(browser) as page:
            yield page

    @pytest.fixture
    def visitor(shared_window: Page, page_url: str) -> Iterator[Visitor]:
        """A visitor of the page. The test fails if the browser reports errors or requests other hosts."""
        one = Visitor(shared_window, page_url)
        yield one
        one.leave()

    @pytest.fixture
    def clip(tmp_path: Path) -> Path:
        path = tmp_path / "clip.wav"
        path.write_bytes(wav_bytes(*speech(12.0)))
        return path
