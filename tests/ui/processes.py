"""The server and the page as processes, each in its own environment."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVER_PYTHON = Path(os.environ.get("MYNAH_SERVER_PYTHON", ROOT / ".venv/bin/python"))
_ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("MYNAH_")},
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "protos")]),
}


class Process:
    """A serving process. It keeps its address over restarts."""

    def __init__(
        self, command: list[str], address: str, ready: str, environment: Mapping[str, str] | None = None
    ) -> None:
        """`address` is a pattern for its address in its output; `ready` is part of the line after which it serves."""
        self._environment = {**_ENVIRONMENT, **(environment or {})}
        self.address = "127.0.0.1:0"
        self._command, self._pattern, self._ready = command, address, ready

    def start(self) -> None:
        command = [*self._command, "--listen", self.address]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self._environment, cwd=ROOT)
        assert self._process.stdout is not None
        output = ""
        for line in self._process.stdout:
            output += line
            if self._ready in line:
                break
        match = re.search(self._pattern, output)
        assert match is not None, f"{command} ended with {self._process.wait(10)}: {output}"
        self.address = match[1]

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGABRT)  # the server's faulthandler writes the stacks of its threads
            self._process.wait(10)
            raise
        finally:
            self._process.kill()


@contextmanager
def server_process(*flags: str) -> Iterator[Process]:
    """`mynah-serve`, warmed up; with random:tiny if `flags` name no model."""
    command = [str(SERVER_PYTHON), "-m", "service", *(() if "--model" in flags else ("--model", "random:tiny"))]
    command += ["--voices-dir", "memory", "--grace-s", "0", "--max-streams", "4"]
    command += ["--cache-dir", str(ROOT / "build/ui-tests")]
    with _running(Process([*command, *flags], r"listening on (\S+)", "serving after")) as server:
        yield server


@contextmanager
def running_process(command: list[str], address: str, ready: str) -> Iterator[Process]:
    """Another server; the arguments are those of Process."""
    with _running(Process(command, address, ready)) as server:
        yield server


@contextmanager
def page_process(*flags: str, environment: Mapping[str, str] | None = None) -> Iterator[Process]:
    """`python -m ui` on a free port; the address is the page's."""
    with _running(Process([sys.executable, "-m", "ui", *flags], r"open (\S+)", "mynah-page", environment)) as page:
        yield page


@contextmanager
def _running(process: Process) -> Iterator[Process]:
    try:
        process.start()
        yield process
    finally:
        process.stop()
