"""The environments of the page: a prefix and TLS, phones and wide screens, screen readers, a slow line, a server that
does not answer."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trustme
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Route

from tests.ui.processes import Process, page_process
from tests.ui.visitor import Visitor

SHORT = "Good morning."
PHONE = {"viewport": {"width": 375, "height": 740}, "has_touch": True}


def test_the_server_goes_away_and_comes_back(visitor: Visitor, server: Process):
    server.stop()
    try:
        banner = visitor.page.locator(".banner")
        banner.wait_for()
        assert f"The speech server at {server.address} does not answer." in banner.inner_text()
        visitor.write(SHORT)
        visitor.button("Speak").click()
        assert visitor.error(".general-errors") == "The speech server does not answer. Try again in a moment."
    finally:
        server.start()
    banner.wait_for(state="hidden")
    visitor.speak()
    visitor.finished()
    assert visitor.recording()["state"] == "done"


def test_behind_a_prefix_and_tls(browser: Browser, server: Process, tmp_path: Path, clip: Path):
    authority, certificate, key = trustme.CA(), tmp_path / "certificate.pem", tmp_path / "key.pem"
    issued = authority.issue_cert("127.0.0.1")
    certificate.write_bytes(issued.cert_chain_pems[0].bytes())
    key.write_bytes(issued.private_key_pem.bytes())
    tls = ("--tls-certificate", str(certificate), "--tls-key", str(key))
    with page_process("--server", server.address, "--root-path", "/voice/mynah", *tls) as page:
        assert page.address.startswith("https://")
        assert page.address.endswith("/voice/mynah/")
        with Visitor.on(browser, page.address.rstrip("/"), ignore_https_errors=True) as visitor:
            visitor.speak(SHORT)
            visitor.finished()
            visitor.page.locator("#result a[download]").wait_for(state="attached")
            visitor.open_tab("Voices")
            visitor.page.locator("#clip").get_by_label("Upload file").click()
            visitor.page.locator("#clip input[type=file]").set_input_files(clip)
            visitor.page.locator(".verdict-text[data-verdict=yes]").wait_for()
        request = browser.new_context(ignore_https_errors=True).request
        stripped = request.get(page.address.replace("/voice/mynah", "") + "mynah/static/page.js")  # as some proxies do
        assert stripped.ok


@pytest.mark.parametrize("file", ["stream.js", "clip.js"])
def test_a_click_waits_for_its_code(browser: Browser, page_url: str, file: str):
    late: list[Route] = []
    with browser.new_context() as context:
        page = context.new_page()
        page.route(f"**/mynah/static/{file}", lambda route: late.append(route))
        page.goto(page_url)
        if file == "stream.js":
            page.get_by_role("button", name="Speak", exact=True).click()
            late.pop().continue_()
            page.wait_for_function("window.mynah?.player.recordings.a?.firstSound")
        else:
            page.get_by_role("tab", name="Voices").click()
            page.get_by_role("button", name="Clone this voice").click()
            late.pop().continue_()
            page.locator("#clip .field-error").wait_for()


def test_another_site_s_page_may_not_speak_here(page_url: str):
    host = page_url.removeprefix("http://").rstrip("/")
    answers = {origin: upgrade(host, origin) for origin in (f"http://{host}", "http://elsewhere.example")}
    assert answers == {f"http://{host}": 101, "http://elsewhere.example": 403}


def upgrade(host: str, origin: str) -> int:
    """Returns the HTTP status for a WebSocket from a page of `origin`."""
    name, _, port = host.partition(":")
    lines = [
        "GET /mynah/speak HTTP/1.1",
        f"Host: {host}",
        f"Origin: {origin}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    ]
    with socket.create_connection((name, int(port)), timeout=10) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return int(connection.recv(4096).split()[1])


@pytest.mark.parametrize(
    ("scheme", "size"),
    [("light", {"viewport": {"width": 1440, "height": 900}}), ("dark", PHONE)],
    ids=["desktop-light", "phone-dark"],
)
def test_it_fits_and_is_accessible(browser: Browser, page_url: str, scheme: str, size: dict[str, object]):
    with Visitor.on(browser, page_url, color_scheme=scheme, **size) as visitor:
        visitor.speak(SHORT)
        visitor.finished()
        visitor.page.locator("#result a[download]").wait_for(state="attached")
        for tab in ("Speak", "Voices"):
            visitor.open_tab(tab)
            visitor.page.locator("#voices:visible, #result:visible").first.wait_for()
            assert visitor.evaluate("document.documentElement.scrollWidth <= innerWidth"), tab
            violations = Axe().run(visitor.page).response["violations"]
            assert [(one["id"], [node["html"][:160] for node in one["nodes"]]) for one in violations] == [], tab
