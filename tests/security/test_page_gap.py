"""What a visitor hears through the page while others send it requests that its own code never makes.

It runs in the environment of `make test-ui`, where Gradio is.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic

import pytest

if importlib.util.find_spec("gradio") is None:
    pytest.skip("the page's environment is not this one", allow_module_level=True)

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.security.test_page import EVENT_PATHS, HEAD, MALFORMED, OPEN, SPEAK, Visited, file_object
from tests.security.waits import Wait
from tests.ui.processes import SERVER_PYTHON, page_process, running_process
from ui.connections import MAX_CONNECTIONS
from ui.uploads import MAX_UPLOADS

_MAX_GAP_S = 0.5  # what a real-time listener may have buffered
_TRIES = 3  # an attack that silences others does so each time, what else a machine does does not
_TEXT = json.dumps({"type": "text", "text": "This is a sentence of a long speech that goes on. " * 100})
_END, _STOP = '{"type": "end"}', '{"type": "stop"}'


class Hearing:
    """A visitor that listens to a long text; the waits of all threads in between for a processor do not count."""

    def __init__(self, browser: ClientConnection, pids: list[int]) -> None:
        self._browser, self._pids = browser, pids
        self._chunks = 0
        self._gap_s = 0.0
        self._heard = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        waits = [Wait(os.getpid(), threading.get_native_id()), *map(Wait, self._pids)]
        last_s = monotonic()
        try:
            for message in self._browser:
                if isinstance(message, bytes):
                    gap_s, last_s = monotonic() - last_s, monotonic()
                    with self._heard:
                        self._gap_s = max(self._gap_s, gap_s - sum(wait.since_last_s() for wait in waits))
                        self._chunks += 1
                        self._heard.notify()
        except ConnectionClosed:
            pass
        with self._heard:
            self._gap_s, self._chunks = float("inf"), self._chunks + 1000  # it does not speak any more
            self._heard.notify()

    def largest_s(self, least_chunks: int = 2) -> float:
        """The largest silence since the last call, once so many more chunks have come."""
        with self._heard:
            awaited = self._chunks + least_chunks
            assert self._heard.wait_for(lambda: self._chunks >= awaited, timeout=60)
            gap_s, self._gap_s = self._gap_s, 0.0
        return gap_s


@contextmanager
def hearing(page: Visited, pids: list[int]) -> Iterator[Hearing]:
    with connect(f"ws://{page.host}{SPEAK}", open_timeout=60, max_size=None) as browser:
        for message in (OPEN, _TEXT, _END):
            browser.send(message)
        listener = Hearing(browser, pids)
        yield listener
        browser.send(_STOP)


def paths_of_the_host(page: Visited) -> None:
    """Events that name files of the host, at every address that Gradio has for them."""
    for path in EVENT_PATHS:
        for file in ("/dev/zero", "/etc/passwd"):
            body = {"data": [file_object(file), "a name", True], "fn_index": 1, "session_hash": "a"}
            assert page.request("POST", path, body)[0] == 404


def foreign_hosts(page: Visited) -> None:
    for _ in range(50):
        headers = {"Host": "evil.example", "Origin": "http://evil.example"}
        assert page.request("GET", "/mynah/status", headers=headers)[0] == 403


def unfinished_requests(page: Visited) -> None:
    """More heads than the page has connections, and uploads that stop half-way."""
    address, _, port = page.host.partition(":")
    upload = f"POST /mynah/voices?name=a&consent=true HTTP/1.1\r\nHost: {page.host}\r\nContent-Length: 9\r\n\r\nabcd"
    with ExitStack() as unfinished:
        for sent in [HEAD] * (MAX_CONNECTIONS + 50) + [upload.encode()] * MAX_UPLOADS:
            one = unfinished.enter_context(socket.create_connection((address, int(port)), 60))
            one.sendall(sent)
        assert page.request("GET", "/theme.css")[0] == 200


def malformed_messages(page: Visited) -> None:
    for messages in MALFORMED.values():
        if messages != [OPEN]:
            assert page.events(*messages)[-1]["type"] == "error"


ATTACKS: list[Callable[[Visited], None]] = [paths_of_the_host, foreign_hosts, unfinished_requests, malformed_messages]


def test_a_visitor_hears_on_while_others_attack(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    command = [str(SERVER_PYTHON), "-m", "bench.scripted_server", "{}", "--max-streams", "4"]
    with (
        running_process(command, r"listening on (\S+)", "serving after") as server,
        page_process("--server", server.address, environment={"GRADIO_TEMP_DIR": str(tmp_path)}) as running,
    ):
        page = Visited(running.address, tmp_path)
        with hearing(page, [server.pid, running.pid]) as listener:
            listener.largest_s()
            allowed_s = max(_MAX_GAP_S, listener.largest_s(6) + 0.3)
            for attack in ATTACKS:
                gaps_s = []
                while len(gaps_s) < _TRIES and not any(gap_s <= allowed_s for gap_s in gaps_s):
                    attack(page)
                    gaps_s.append(listener.largest_s())
                print(f"{attack.__name__}: gaps {gaps_s} s, allowed {allowed_s:.2f}")
                assert min(gaps_s) <= allowed_s, attack.__name__
    assert "Traceback" not in capfd.readouterr().err
