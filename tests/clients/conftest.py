"""Clients that people use, against a server process. They run in the environment of `make test-clients` alone."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

if any(importlib.util.find_spec(name) is None for name in ("openai", "livekit", "pipecat")):
    collect_ignore_glob = ["test_*.py"]

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("MYNAH_PYTHON", str(ROOT / ".venv" / "bin" / "python"))  # the one that has the server


@dataclass(frozen=True)
class Addresses:
    """Of a running server: HOST:PORT."""

    grpc: str
    http: str


@pytest.fixture(scope="session")
def server() -> Iterator[Addresses]:
    """A server on the fake engine: three streams, tones instead of speech."""
    environment = {name: value for name, value in os.environ.items() if name != "MYNAH_PYTHON"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "protos")])
    listen = ["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--max-streams", "3"]
    command = [PYTHON, "-m", "tests.clients.fake_server", *listen]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT) as running:
        assert running.stdout is not None
        told = ""
        for line in running.stdout:
            told += line
            if "serving after" in line:
                break
        try:
            grpc = re.search(r"listening on (\S+)", told)
            http = re.search(r"HTTP at http://(\S+)", told)
            assert grpc is not None, told
            assert http is not None, told
            yield Addresses(grpc[1], http[1])
        finally:
            running.terminate()
            assert running.wait(30) == 0
