"""What `make first-run` reads from the documents, and how it judges what a block prints."""

from __future__ import annotations

import http.server
import os
import socket
import sys
import threading
from contextlib import nullcontext
from pathlib import Path

import pytest

from tools import first_run
from tools.first_run import Block, Failed, Newcomer, blocks_of, check_page, check_ports_are_free, run_block


def test_every_block_of_the_documents_runs_or_says_why_not():
    blocks = [block for page in first_run.PAGES for block in blocks_of(page, (first_run.ROOT / page).read_text())]
    kinds = [block.note.partition(" ")[0].rstrip(",") for block in blocks]
    assert set(kinds) <= {"", "file", "stays", "skipped"}
    readme = [kind for block, kind in zip(blocks, kinds, strict=True) if block.page == "README.md"]
    assert "skipped" not in readme, "the README promises nothing that a newcomer cannot run"
    assert len(readme) >= 6
    assert all(block.note for block in blocks if block.language == "python")


def test_a_note_is_read_with_its_block_and_is_no_part_of_it():
    noted = "<!-- first run: skipped, it needs a GPU -->\n```sh\nrun it\n```\n"
    text = f"Words.\n\n{noted}\n```sh\nand this\n```\n```json\n{{}}\n```\n"
    assert list(blocks_of("page.md", text)) == [
        Block("page.md", 5, "sh", "run it\n", "skipped, it needs a GPU"),
        Block("page.md", 9, "sh", "and this\n"),
    ]


@pytest.fixture
def newcomer(tmp_path: Path) -> Newcomer:
    return Newcomer(tmp_path, tmp_path, tmp_path, sys.executable)


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("echo fine; false; echo later", "page.md:1 ended with status 1"),
        ("echo 'UserWarning: something is deprecated'", "page.md:1 printed noise"),
        ("echo 'Traceback (most recent call last):' >&2", "page.md:1 printed noise"),
    ],
)
def test_a_block_that_fails_or_prints_noise_is_a_failure(newcomer: Newcomer, code: str, complaint: str):
    with pytest.raises(Failed, match=complaint):
        run_block(newcomer, Block("page.md", 1, "sh", code))


def test_a_block_runs_with_an_empty_home_and_without_what_the_caller_set(
    newcomer: Newcomer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MYNAH_MODEL", "random:tiny")
    status, output = newcomer.run('echo "$HOME/$MYNAH_MODEL"; pwd')
    assert (status, output) == (0, f"{newcomer.home}/\n{os.path.realpath(newcomer.clone)}\n")


def test_a_block_that_stays_is_interrupted_at_the_end(newcomer: Newcomer):
    block = Block("page.md", 1, "sh", "trap 'echo stopping; exit' INT; echo up; while :; do sleep 0.01; done", "stays")
    with first_run._staying(newcomer, block, "up"):
        pass
    assert (newcomer.home / "stays-1.log").read_text() == "up\nstopping\n"


def test_a_block_that_does_not_come_up_is_a_failure(newcomer: Newcomer):
    with (
        pytest.raises(Failed, match="did not print 'up'"),
        first_run._staying(newcomer, Block("page.md", 1, "sh", "echo down", "stays"), "up"),
    ):
        pass


def test_a_port_in_use_is_named_before_anything_is_installed():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Failed, match=f"port {port} of this machine is in use"):
            check_ports_are_free([port])
    check_ports_are_free([port])


@pytest.mark.parametrize(
    ("body", "complaint"),
    [(b"<title>Mynah</title><script></script>", None), (b"<h1>It works!</h1>", "is not the page"), (None, "answer")],
)
def test_a_page_that_is_not_served_is_a_failure(body: bytes | None, complaint: str | None):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if body else 500)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        answering = threading.Thread(target=server.handle_request, daemon=True)
        answering.start()
        with nullcontext() if complaint is None else pytest.raises(Failed, match=complaint):
            check_page(f"http://127.0.0.1:{server.server_port}/")
        answering.join()
