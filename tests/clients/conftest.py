"""Third-party clients against a server process; `make test-clients` runs them in the environment that has them."""

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
PYTHON = os.environ.get("MYNAH_PYTHON", str(ROOT / ".venv" / "bin" / "python"))  # of the environment with the server


@dataclass(frozen=True)
class Addresses:
    """HOST:PORT of a running server's ports."""

    grpc: str
    http: str


@pytest.fixture(scope="session")
def server() -> Iterator[Addresses]:
    """A server on the fake engine, which makes tones, with at most three streams."""
    environment = {name: value for name, value in os.environ.items() if name != "MYNAH_PYTHON"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "protos")])
    listen = ["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--max-streams", "3"]
    command = [PYTHON, "-m", "tests.clients.fake_server", *listen]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT) as running:
        assert running.stdout is not None
        output = ""
        for line in running.stdout:
            output += line
            if "serving after" in line:
                break
        try:
            grpc = re.search(r"listening on (\S+)", output)
            http = re.search(r"HTTP at http://(\S+)", output)
            assert grpc is not None, output
            assert http is not None, output
            yield Addresses(grpc[1], http[1])
        finally:
            running.terminate()
            assert running.wait(30) == 0
