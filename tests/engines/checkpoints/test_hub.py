"""Tests of the hub against a local server: downloads, cache, resumption, and messages of failures."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from engines.checkpoints.hub import HubUnreachable, HuggingFaceHub
from engines.errors import CheckpointError

REPO = "ResembleAI/chatterbox-nano"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"t3_nano_v1.safetensors": b"T" * 25_000_000, "vocab.json": b"{}", "README.md": b"about", "huge.bin": b"H" * 10}


class HubServer(ThreadingHTTPServer):
    """Serves a repository's listing and its files."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.refusal: tuple[int, str] | None = None  # status, X-Error-Code
        self.break_off_after_bytes: int | None = None  # once
        self.served: list[tuple[str, str | None]] = []  # file, Range

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class HubHandler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"
    resolve: ClassVar = re.compile(rf"^/{REPO}/resolve/[^/]+/(.+)$")

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, body: bool) -> None:
        if self.server.refusal:
            status, code = self.server.refusal
            self._send(status, b"{}", {"X-Error-Code": code}, body)
        elif self.path.startswith(f"/api/models/{REPO}"):
            siblings = [{"rfilename": name} for name in FILES]
            listing = {"id": REPO, "modelId": REPO, "sha": COMMIT, "siblings": siblings, "private": False}
            self._send(200, json.dumps(listing).encode(), {"Content-Type": "application/json"}, body)
        elif match := self.resolve.match(self.path):
            self._send_file(match[1], body)
        else:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)

    def _send_file(self, name: str, body: bool) -> None:
        content = FILES[name]
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        byte_range = self.headers.get("Range")
        if body:
            self.server.served.append((name, byte_range))
        if byte_range:
            first = int(byte_range.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
            self._send(206, content[first:], headers, body)
        else:
            self._send(200, content, headers, body)

    def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        cut = self.server.break_off_after_bytes
        if body and cut is not None and len(content) > cut:
            self.server.break_off_after_bytes = None
            self.wfile.write(content[:cut])
            self.close_connection = True
        elif body:
            self.wfile.write(content)


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


WANTED = ("t3_nano_v1.safetensors", "vocab.json", "merges.txt")


def test_only_requested_files_are_downloaded(server: HubServer, tmp_path: Path) -> None:
    folder = HuggingFaceHub(tmp_path, server.endpoint).download(REPO, WANTED)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {name: FILES[name] for name in WANTED[:2]}
    assert {name for name, _ in server.served} == set(WANTED[:2])


def test_a_warm_cache_is_found_without_a_server(server: HubServer, tmp_path: Path) -> None:
    folder = HuggingFaceHub(tmp_path, server.endpoint).download(REPO, WANTED)
    assert HuggingFaceHub(tmp_path, "http://127.0.0.1:9").cached(REPO, WANTED)[0] == folder
    assert HuggingFaceHub(tmp_path / "other", "http://127.0.0.1:9").cached("ResembleAI/no-such-model", WANTED) == []


def test_a_pinned_commit_is_another_snapshot_than_the_newest(server: HubServer, tmp_path: Path) -> None:
    """A commit that is here needs no hub; one that is not is never replaced by another."""
    hub, offline = HuggingFaceHub(tmp_path, server.endpoint), HuggingFaceHub(tmp_path, "http://127.0.0.1:9")
    folder = hub.download(REPO, WANTED, COMMIT)
    assert folder.name == COMMIT
    assert offline.cached(REPO, WANTED, COMMIT)[0] == folder
    assert offline.cached(REPO, WANTED, "f" * 40) == []
    assert hub.download(REPO, WANTED) == folder


def test_an_interrupted_download_resumes(server: HubServer, tmp_path: Path) -> None:
    server.break_off_after_bytes = 21_000_000
    hub = HuggingFaceHub(tmp_path, server.endpoint)
    try:
        folder = hub.download(REPO, WANTED)
    except HubUnreachable:
        folder = hub.download(REPO, WANTED)
    assert (folder / WANTED[0]).read_bytes() == FILES[WANTED[0]]
    first, second = (byte_range for name, byte_range in server.served if name == WANTED[0])
    assert first is None
    assert second is not None
    assert int(second.removeprefix("bytes=").rstrip("-")) > 0


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (403, "GatedRepo", "gated: accept its terms"),
        (401, "GatedRepo", "gated: accept its terms"),
        (404, "RepoNotFound", "does not exist or is private: check HF_TOKEN"),
        (404, "RevisionNotFound", "has no revision None: give a commit, tag or branch"),
    ],
)
def test_errors_that_the_user_can_solve_say_how(
    server: HubServer, tmp_path: Path, status: int, code: str, message: str
) -> None:
    server.refusal = (status, code)
    with pytest.raises(CheckpointError, match=message) as caught:
        HuggingFaceHub(tmp_path, server.endpoint).download(REPO, WANTED)
    assert not isinstance(caught.value, HubUnreachable)


@pytest.mark.parametrize("status", [500, 503, 429])
def test_server_errors_count_as_unreachable(server: HubServer, tmp_path: Path, status: int) -> None:
    server.refusal = (status, "")
    with pytest.raises(
        HubUnreachable, match=f"{REPO} cannot be reached .HTTP status {status}.*hf download {REPO}"
    ) as caught:
        HuggingFaceHub(tmp_path, server.endpoint).download(REPO, WANTED)
    assert caught.value.retryable
    assert "\n" not in str(caught.value)


def test_a_refused_connection_counts_as_unreachable(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(HubUnreachable, match=r"\(ConnectionError\): check the network and proxy"):
            HuggingFaceHub(tmp_path, endpoint).download(REPO, WANTED)


def test_a_read_only_cache_folder_is_named(server: HubServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CheckpointError, match=str(tmp_path / "file")) as caught:
        HuggingFaceHub(tmp_path / "file", server.endpoint).download(REPO, WANTED)
    assert not isinstance(caught.value, HubUnreachable)
