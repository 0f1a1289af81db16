"""The page against requests that its own browser code never makes, through real sockets.

They run in the environment of `make test-ui`, where Gradio is.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("gradio") is None:
    pytest.skip("the page's environment is not this one", allow_module_level=True)

import uvicorn
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.ui.processes import page_process
from ui.connections import MAX_CONNECTIONS, Connection
from ui.gateway import Hosts
from ui.uploads import MAX_PER_VISITOR, MAX_UPLOADS

SECRET = "the contents of a file of this host"
NOWHERE = "127.0.0.1:1"  # no speech server answers here
SPEAK = "/mynah/speak"


class Visited:
    """A running page and the folder that Gradio would keep uploads in."""

    def __init__(self, address: str, uploads: Path) -> None:
        self.host, self.uploads = address.removeprefix("http://").rstrip("/"), uploads

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, source: str = "127.0.0.1"
    ) -> tuple[int, bytes, HTTPResponse]:
        """Returns the status, the body and the response."""
        connection = HTTPConnection(self.host, timeout=60, source_address=(source, 0))
        if isinstance(body, dict):
            headers, body = {"Content-Type": "application/json", **(headers or {})}, json.dumps(body)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, data, answer

    def kept_files(self) -> list[Path]:
        return [path for path in self.uploads.rglob("*") if path.is_file()]

    def events(self, *messages: str | bytes) -> list[dict[str, Any]]:
        """Returns the events that a socket answers with, up to its end."""
        with connect(f"ws://{self.host}{SPEAK}", open_timeout=60) as browser:
            for message in messages:
                browser.send(message)
            return [json.loads(event) for event in browser]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visited]:
    uploads = tmp_path_factory.mktemp("uploads")
    with page_process("--server", NOWHERE, environment={"GRADIO_TEMP_DIR": str(uploads)}) as running:
        yield Visited(running.address, uploads)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.wav"
    path.write_text(SECRET)
    return path


def file_object(path: Path | str) -> dict[str, Any]:
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


EVENT_PATHS = [
    *(f"/gradio_api/{call}/{name}" for call in ("run", "api", "call", "call/v2") for name in ("predict", "clone")),
    "/gradio_api/run/predict/",
    "/gradio_api/queue/join",
    "/gradio_api/component_server",
    "/gradio_api/stream/an-event",
    "/gradio_api/vibe-code",
]


@pytest.mark.parametrize("path", EVENT_PATHS)
def test_no_event_takes_a_path(page: Visited, secret: Path, tmp_path: Path, path: str):
    link, pipe = tmp_path / "link.wav", tmp_path / "pipe.wav"
    link.symlink_to(secret)
    os.mkfifo(pipe)  # opening it would never return
    for file in (secret, link, pipe, "/dev/zero", "/etc/passwd", tmp_path / "missing.wav", "http://127.0.0.1:1/"):
        answers = set()
        for index in range(25):
            data = [file_object(file), "a name", True]
            body = {"data": data, "event_data": file_object(file), "fn_index": index, "session_hash": "a"}
            status, answer, _ = page.request("POST", path, body)
            answers.add((status, answer))
        assert answers == {(404, b"This page has no such address.")}, file
    assert page.kept_files() == []


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file={secret}",
        "/gradio_api/file/{secret}",
        "/gradio_api/proxy=http://127.0.0.1:1/",
        "/file={secret}",
        "/static/../../../../../../../../..{secret}",
        "/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e{secret}",
        "/assets/..%2f..%2f..%2f..%2f..%2f..%2f..%2f..%2f..{secret}",
        "/assets/{secret}",
        "/mynah/static/..%2f..%2f..%2f..%2f..%2f..%2f..{secret}",
        "/mynah/recordings/..%2f..{secret}",
        "/gradio_api/custom_component/1/client/component/..%2f..{secret}",
        "/monitoring",
        "/gradio_api/info",
        "/config",
    ],
)
def test_no_address_serves_a_file_or_gradio_s_api(page: Visited, secret: Path, path: str):
    for method in ("GET", "HEAD"):
        status, answer, _ = page.request(method, path.format(secret=secret))
        assert status == 404
        assert SECRET.encode() not in answer


def test_gradio_takes_no_upload(page: Visited):
    part = 'Content-Disposition: form-data; name="files"; filename="a.wav"'
    body = "\r\n".join(["--b", part, "", "x", "--b--", ""])
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    for path in ("/gradio_api/upload", "/gradio_api/upload?upload_id=1", "/gradio_api/process_recording"):
        assert page.request("POST", path, body, headers)[0] == 404
    assert page.kept_files() == []


def test_what_a_browser_loads_is_served(page: Visited):
    status, html, _ = page.request("GET", "/")
    assert status == 200
    assert b"gradio" in html
    assert page.request("GET", "/theme.css")[0] == 200
    assert page.request("GET", "/mynah/static/page.js")[0] == 200


def test_uploads_are_bounded_in_size(page: Visited):
    status, answer, _ = page.request("POST", "/mynah/voices?name=a&consent=true", bytes(32 * 2**20 + 1))
    assert (status, json.loads(answer)["reason"]) == (413, "AUDIO_TOO_LARGE")


def test_uploads_are_bounded_per_visitor_and_in_all_and_give_their_places_back(page: Visited):
    address = page.host.rpartition(":")
    head = f"POST /mynah/voices?name=a&consent=true HTTP/1.1\r\nHost: {page.host}\r\nContent-Length: 9\r\n\r\nabcd"

    def status(source: str) -> int:
        return page.request("POST", "/mynah/voices?name=a&consent=true", b"x", source=source)[0]

    with ExitStack() as unfinished:
        for number in range(MAX_UPLOADS):
            if number == MAX_PER_VISITOR:
                _until(lambda: status("127.0.0.2") == 429)  # this visitor has no place left, others have
                assert status("127.0.0.9") == 503
            source = f"127.0.0.{2 + number // MAX_PER_VISITOR}"
            one = socket.create_connection((address[0], int(address[2])), 60, (source, 0))
            unfinished.enter_context(one).sendall(head.encode())
        _until(lambda: status("127.0.0.9") == 429)
    _until(lambda: status("127.0.0.2") == 503)  # the speech server is away, so this one was read whole


def _until(condition: Any) -> None:
    """Ask again until it holds; the test's own time limit ends a wait in vain."""
    while not condition():
        pass


HEAD = b"GET /theme.css HTTP/1.1\r\nHost: localhost\r\n"
UPGRADE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def test_unfinished_heads_keep_no_other_visitor_out(page: Visited):
    address, _, port = page.host.partition(":")
    with ExitStack() as unfinished:
        for _ in range(MAX_CONNECTIONS + 50):
            one = unfinished.enter_context(socket.create_connection((address, int(port)), 60))
            one.sendall(HEAD)
        assert page.request("GET", "/theme.css")[0] == 200
        finished = unfinished.enter_context(socket.create_connection((address, int(port)), 60))
        finished.sendall(HEAD + b"\r\n")
        assert finished.recv(12) == b"HTTP/1.1 200"


def test_a_head_must_be_complete_in_time_and_an_answer_need_not(monkeypatch: pytest.MonkeyPatch):
    with ThreadPoolExecutor() as pool:  # the browser's tests have a loop in this thread
        pool.submit(asyncio.run, _slow_heads(monkeypatch)).result()


async def _slow_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: asyncio.Queue[str] = asyncio.Queue()
    others_ended = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked.put_nowait(scope["type"])
        await others_ended.wait()
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await receive()
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    config = uvicorn.Config(app, http=Connection, ws="websockets-sansio", lifespan="off", log_level="warning")
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    serving = asyncio.create_task(server.serve([listener]))
    reader, writer = await _sent(address, HEAD + b"\r\n")
    browser, browser_writer = await _sent(address, HEAD + UPGRADE + b"\r\n")
    assert {await asked.get(), await asked.get()} == {"http", "websocket"}
    waiting = [one for one in server.server_state.connections if getattr(one, "_head_timer", None) is not None]
    assert waiting == []

    monkeypatch.setattr(Connection, "head_timeout_s", 0.01)
    for part in (b"", HEAD):
        slow, slow_writer = await _sent(address, part)
        assert await slow.read() == b""
        slow_writer.close()
    others_ended.set()
    answer = await reader.read()  # ends because no second head follows on this connection
    assert answer.startswith(b"HTTP/1.1 200")
    assert (await browser.readline()).startswith(b"HTTP/1.1 101")
    for one in (writer, browser_writer):
        one.close()
    server.should_exit = True
    await serving


async def _sent(address: tuple[str, int], data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(data)
    return reader, writer


@pytest.mark.parametrize("header", [b"Sec-WebSocket-Protocol", b"Upgrade"])
def test_a_handshake_with_other_bytes_than_ascii_is_refused(page: Visited, header: bytes):
    address, _, port = page.host.partition(":")
    with socket.create_connection((address, int(port)), 60) as browser:
        head = HEAD.replace(b"/theme.css", SPEAK.encode())
        browser.sendall(head + header + b": \xff\r\n" + UPGRADE + b"\r\n")
        assert browser.recv(12) == b"HTTP/1.1 400"


@pytest.mark.parametrize("refused", [b"POST", b"Content-Length: 1\r\n", b"x: y\r\n" * 200])
def test_a_handshake_that_cannot_be_read_ends(page: Visited, refused: bytes):
    address, _, port = page.host.partition(":")
    with socket.create_connection((address, int(port)), 60) as browser:
        head = HEAD.replace(b"/theme.css", SPEAK.encode())
        head = head.replace(b"GET", b"POST") if refused == b"POST" else head + refused
        browser.sendall(head + UPGRADE + b"\r\n")
        answer = b"".join(iter(lambda: browser.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 400")


def test_a_parameter_of_another_type_is_named_and_not_repeated(page: Visited):
    status, answer, _ = page.request("POST", "/mynah/voices?name=a&consent=perhaps", b"abc")
    assert (status, json.loads(answer)["field"]) == (400, "consent")
    assert b"perhaps" not in answer


FOREIGN = {"Host": "rebound.example:7860", "Origin": "http://rebound.example:7860"}


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("GET", "/mynah/voices"), ("POST", "/mynah/voices")])
def test_a_foreign_host_name_is_refused(page: Visited, method: str, path: str):
    status, answer, _ = page.request(method, path, headers=FOREIGN)
    assert status == 403
    assert b"--allowed-host" in answer


def test_a_foreign_host_name_gets_no_socket(page: Visited):
    with pytest.raises(InvalidStatus) as refused, _from(page, FOREIGN):
        pass
    assert refused.value.response.status_code == 403


def _from(page: Visited, headers: dict[str, str]) -> Any:
    own = dict(headers)
    host = own.pop("Host")
    address, _, port = page.host.partition(":")
    raw = socket.create_connection((address, int(port)), timeout=60)
    return connect(f"ws://{host}{SPEAK}", sock=raw, additional_headers=own, open_timeout=60)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]", "127.0.0.53"])
def test_loopback_s_names_are_answered(page: Visited, name: str):
    assert page.request("GET", "/theme.css", headers={"Host": f"{name}:7860"})[0] == 200


def test_which_hosts_are_answered():
    names = ("a.example", "192.168.1.5", "localhost:7860", "127.0.0.1", "", "a b", "a.example@127.0.0.1")
    loopback = [name for name in names if Hosts("127.0.0.1").allows(name)]
    named = [name for name in names if Hosts("127.0.0.1", ("A.example",)).allows(name)]
    lan = [name for name in names if Hosts("192.168.1.5").allows(name)]
    everywhere = [name for name in names if Hosts("0.0.0.0").allows(name)]
    assert loopback == ["localhost:7860", "127.0.0.1"]
    assert named == ["a.example", *loopback]
    assert lan == ["192.168.1.5", *loopback]
    assert everywhere == ["a.example", *lan]
    assert not Hosts("::", ("a.example",)).allows("b.example")


def test_other_sites_may_neither_act_nor_read_nor_frame(page: Visited):
    elsewhere = {"Origin": "http://elsewhere.example"}
    for method, path in [("POST", "/mynah/voices"), ("DELETE", "/mynah/voices/a"), ("OPTIONS", "/mynah/voices")]:
        assert page.request(method, path, headers=elsewhere)[0] == 403
    for path in ("/", "/mynah/voices", "/theme.css", "/missing"):
        _, _, answer = page.request("GET", path, headers=elsewhere)
        assert [name for name in answer.headers if name.lower().startswith("access-control")] == []
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


def test_a_host_header_cannot_add_to_the_content_security_policy(page: Visited):
    status, _, answer = page.request("GET", "/", headers={"Host": "localhost; script-src *"})
    assert status in (400, 403)
    assert "script-src *" not in answer.headers.get("Content-Security-Policy", "")


OPEN = '{"type": "open"}'
MALFORMED = {
    "no JSON": ["{"],
    "binary": [b"\0\1"],
    "another type": ['{"type": "text", "text": "a"}'],
    "a list": ["[]"],
    "nested too deeply": ["[" * 100_000],
    "a voice that is no string": ['{"type": "open", "voice": {"path": "/etc/passwd"}}'],
    "sampling that is no object": ['{"type": "open", "sampling": [1]}'],
    "a seed that is no number": ['{"type": "open", "sampling": {"seed": {"a": 1}}}'],
    "an endless top_k": ['{"type": "open", "sampling": {"top_k": 1e999}}'],
    "half a character in the voice": ['{"type": "open", "voice": "\\ud800"}'],
    "half a character in the text": [OPEN, '{"type": "text", "text": "\\ud800"}'],
    "text that is no string": [OPEN, '{"type": "text", "text": [1]}'],
    "no server": [OPEN],
}


@pytest.mark.parametrize("messages", MALFORMED.values(), ids=MALFORMED)
def test_every_end_of_a_socket_is_a_typed_event(page: Visited, messages: list[str | bytes]):
    last = page.events(*messages)[-1]
    assert last["type"] == "error"
    assert last["reason"] in ("MESSAGE_INVALID", "NOT_A_NUMBER", "UNAVAILABLE")
    assert last["message"]


def test_sockets_are_bounded_per_visitor(page: Visited):
    with ExitStack() as idle:
        for _ in range(32):
            idle.enter_context(connect(f"ws://{page.host}{SPEAK}", open_timeout=60))
        assert page.events()[-1]["reason"] == "STREAMS_EXHAUSTED"
    _until(lambda: page.events(OPEN)[-1]["reason"] == "UNAVAILABLE")


def test_an_unforeseen_exception_is_a_typed_event():
    import mynah
    from ui.recordings import Recordings
    from ui.speaking import socket_slots, speak

    sent: list[dict[str, Any]] = []

    class Socket:
        client = None

        async def accept(self) -> None: ...

        async def receive_text(self) -> str:
            raise ZeroDivisionError

        async def send_text(self, text: str) -> None:
            sent.append(json.loads(text))

        async def close(self) -> None: ...

    with ThreadPoolExecutor() as pool:
        speaking = speak(Socket(), mynah.Client(NOWHERE), Recordings(), socket_slots())  # type: ignore[arg-type]
        pool.submit(asyncio.run, speaking).result()
    assert [(event["type"], event["reason"]) for event in sent] == [("error", "PAGE_FAILURE")]


def test_an_open_tab_leaves_no_line_in_the_log_when_the_page_ends(capfd: pytest.CaptureFixture[str]):
    with page_process("--server", NOWHERE) as running:
        connection = HTTPConnection(running.address.removeprefix("http://").rstrip("/"), timeout=60)
        connection.request("GET", "/mynah/status")
        assert connection.getresponse().read(1)
    connection.close()
    assert capfd.readouterr().err == ""
