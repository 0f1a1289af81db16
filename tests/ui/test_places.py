"""The environments of the page: a prefix and TLS, phones and wide screens, screen readers, a slow line, a server that
does not answer."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
import trustme
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Route

from mynah.v1 import speech_pb2
from tests.ui.processes import Process, page_process
from tests.ui.visitor import Visitor, window

SHORT = "Good morning."
LONG = "This is a sentence that goes on for a while. " * 30
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
            with visitor.page.expect_download():
                visitor.take().get_by_role("button", name="Download as MP3").click()
            visitor.open_tab("Voices")
            visitor.page.locator(".voices li").first.wait_for()
            visitor.upload(clip)
            visitor.page.locator(".verdict-text[data-verdict=yes]").first.wait_for()
        request = browser.new_context(ignore_https_errors=True).request
        stripped = request.get(page.address.replace("/voice/mynah", "") + "mynah/static/page.js")  # as some proxies do
        assert stripped.ok


@pytest.mark.parametrize("file", ["stream.js", "recorder.js"])
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
            page.locator("#create:disabled").wait_for()  # a form that could not send would reload the page
            late.pop().continue_()
            page.get_by_role("button", name="Clone this voice").click()
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


DESKTOP = {"viewport": {"width": 1440, "height": 900}}


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_is_accessible(browser: Browser, page_url: str, scheme: str, size: dict[str, object], clip: Path):
    with Visitor.on(browser, page_url, color_scheme=scheme, **size) as visitor:
        visitor.page.add_style_tag(content="* { transition: none !important }")  # colours on their way have no contrast
        findings(visitor, "at first")
        visitor.write(LONG)
        visitor.speak()
        findings(visitor, "while speaking")
        visitor.page.keyboard.press("Escape")
        visitor.finished()
        findings(visitor, "with a recording")
        visitor.expert()
        findings(visitor, "for experts")
        visitor.open_tab("Settings B")
        visitor.page.locator("#settings-b[data-settled]").wait_for()
        visitor.page.locator("#seed-b").get_by_role("textbox").fill("abc")
        visitor.button("Compare A and B").click()
        visitor.page.locator(".difference").wait_for()
        findings(visitor, "with B")
        visitor.page.keyboard.press("Escape")
        visitor.finished()
        visitor.open_tab("Voices")
        visitor.page.locator(".voices li").first.wait_for()
        findings(visitor, "voices")
        visitor.upload(clip)
        visitor.page.locator(".verdict-text[data-verdict=yes]").wait_for()
        visitor.button("Clone this voice").click()
        visitor.page.locator("#voice-name .field-error").wait_for()
        findings(visitor, "with an error")
        visitor.expect_refusal()


def findings(visitor: Visitor, when: str) -> None:
    """Assert that nothing is wider than the window and that axe finds nothing."""
    assert visitor.evaluate("document.documentElement.scrollWidth <= innerWidth"), when
    violations = Axe().run(visitor.page).response["violations"]
    assert [(one["id"], [node["html"][:160] for node in one["nodes"]]) for one in violations] == [], when


def test_on_a_phone_the_player_comes_into_view(browser: Browser, page_url: str):
    with Visitor.on(browser, page_url, **PHONE) as visitor:
        visitor.page.locator("#speak").scroll_into_view_if_needed()
        visitor.speak(SHORT)
        visitor.wait(
            """(() => { const { top } = document.querySelector(".player .deck").getBoundingClientRect();
            return top >= 0 && top < innerHeight - 100; })()"""
        )
        visitor.finished()


def test_the_voice_list_closes_on_tab(visitor: Visitor):
    select = visitor.page.locator("#voice-a select")
    select.focus()
    visitor.page.keyboard.press("Tab")
    assert visitor.page.locator("#voice-a [data-do=listen]").evaluate("one => one === document.activeElement")
    assert select.evaluate("one => one.tagName") == "SELECT"  # the browser's own list, which closes by itself


def test_a_server_that_warms_up_is_shown_as_not_ready(browser: Browser):
    """The pill agrees with what Speak does."""
    with starting_server() as address, page_process("--server", address) as page, window(browser) as plain:
        plain.goto(page.address)
        plain.locator(".pill", has_text="Not ready").wait_for()
        assert "takes no text" in plain.locator(".banner").inner_text()


@contextmanager
def starting_server() -> Iterator[str]:
    """A server that answers and opens no stream."""
    info = speech_pb2.GetServerInfoResponse(model="tiny", device="cpu")
    info.limits.max_open_stream_count = 4
    server = grpc.server(ThreadPoolExecutor(2))
    handlers = {
        "mynah.v1.Speech": {"GetServerInfo": lambda _, __: info.SerializeToString()},
        "grpc.health.v1.Health": {"Check": lambda _, __: b"\x08\x02"},  # NOT_SERVING
    }
    for service, methods in handlers.items():
        calls = {name: grpc.unary_unary_rpc_method_handler(call) for name, call in methods.items()}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, calls),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)
