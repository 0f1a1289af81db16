"""Server processes that a Prometheus scrapes."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.service.test_process import ENVIRONMENT, FAKE

REAL = ["-m", "service", "--model", "random:tiny", "--device", "cpu", "--threads", "2"]


def fake(script: str) -> list[str]:
    """A server on the fake engine, with a token every 0.1 s."""
    return ["-c", FAKE.replace("token_s=0.002", "token_s=0.1").format(before="pass", script=script)]


@dataclass(frozen=True)
class Addresses:
    """HOST:PORT of gRPC and of the admin port; of HTTP, empty if the server has none."""

    grpc: str
    admin: str
    http: str


@asynccontextmanager
async def server(program: list[str], *flags: str, admin: str = "127.0.0.1:0") -> AsyncIterator[Addresses]:
    """Starts a server process; yields its addresses when it serves."""
    listen = ["--listen", "127.0.0.1:0", "--admin-listen", admin, *flags]
    running = await asyncio.create_subprocess_exec(
        sys.executable, *program, *listen, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env=ENVIRONMENT,
    )  # fmt: skip
    output = ""
    try:
        assert running.stdout is not None
        async with asyncio.timeout(120):
            while "serving after" not in output:
                line = (await running.stdout.readline()).decode()
                assert line, output
                output += line
        yield Addresses(
            _found(r"listening on (\S+)", output),
            _found(r"readiness at http://(\S+)", output),
            _found(r"HTTP at http://(\S+)", output),
        )
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()


def _found(pattern: str, output: str) -> str:
    found = re.search(pattern, output)
    return found[1] if found else ""
