"""The server and the page as processes of their own, each in its own environment."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVER_PYTHON = Path(os.environ.get("MYNAH_SERVER_PYTHON", ROOT / ".venv/bin/python"))
_ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("MYNAH_")},
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "protos")]),
}


@dataclass(frozen=True)
class Process:
    """A running process and where it can be reached."""

    process: subprocess.Popen[str]
    address: str

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


@contextmanager
def server_process(*flags: str, listen: str = "127.0.0.1:0") -> Iterator[Process]:
    """`mynah-serve` with random:tiny, warmed up."""
    command = [str(SERVER_PYTHON), "-m", "service", "--model", "random:tiny", "--listen", listen]
    command += ["--grace-s", "0", "--max-streams", "4", "--cache-dir", str(ROOT / "build/ui-tests")]
    with _process([*command, *flags], r"listening on (\S+)", "serving after") as running:
        yield running


@contextmanager
def page_process(*flags: str) -> Iterator[Process]:
    """`python -m ui` on a free port; the address is the page's."""
    command = [sys.executable, "-m", "ui", "--listen", "127.0.0.1:0", *flags]
    with _process(command, r"open (\S+)", "mynah-page") as running:
        yield running


@contextmanager
def _process(command: list[str], address: str, ready: str) -> Iterator[Process]:
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_ENVIRONMENT, cwd=ROOT)
    assert running.stdout is not None
    try:
        told = ""
        for line in running.stdout:
            told += line
            if ready in line:
                break
        found = re.search(address, told)
        assert found is not None, f"{command} ended with {running.wait(10)}: {told}"
        yield Process(running, found[1])
    finally:
        if running.poll() is None:
            running.terminate()
        try:
            running.wait(30)
        finally:
            running.kill()
