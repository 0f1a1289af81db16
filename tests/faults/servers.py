"""`mynah-serve` as a process with a scripted engine, faults that are put into it, and ways to look at it."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

import mynah
from tests.service.telemetry.scraping import Answer, get

ROOT = Path(__file__).parents[2]
PYTHONPATH = os.pathsep.join([str(ROOT), str(ROOT / "protos")])
PROGRAM = """
import threading
import engines
from engines.fake import FakeEngine, Script
{before}

def load(config, observer, shared=None):
    return FakeEngine(Script(token_s={token_s}, {script}), max_streams=config.max_streams, observer=observer)

engines.load = load
from service.__main__ import main
main()
"""
REAL = """
{before}
from service.__main__ import main
main()
"""
CHUNKS = "first_hop_tokens=5, hop_tokens=5"  # of 0.2 s, for a healthy stream with token_s=0.04
_LINES = {
    "address": re.compile(r"listening on (\S+)"),
    "admin": re.compile(r"readiness at http://(\S+)"),
    "http": re.compile(r"HTTP at http://(\S+)"),
    "ready": re.compile(r"(serving) after"),
}


@dataclass
class Server:
    """A running server, and where it is."""

    process: asyncio.subprocess.Process
    log: Path
    address: str
    admin: str
    http: str

    async def get(self, path: str) -> Answer:
        return await get(self.admin, path)

    async def ended(self) -> int:
        return await self.process.wait()

    async def health(self, service: str = "") -> str:
        async with grpc.aio.insecure_channel(self.address) as channel:
            request = health_pb2.HealthCheckRequest(service=service)
            answer = await health_pb2_grpc.HealthStub(channel).Check(request)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


@asynccontextmanager
async def server(
    *flags: str,
    before: str = "",
    script: str = "",
    within: Sequence[str] = (),
    path: str = "",
    token_s: float = 0.002,
    program: str = PROGRAM,
) -> AsyncIterator[Server]:
    """A server that serves. `before` is code to run first, `script` more of the engine's script, `within` a command
    that runs the server, `path` a folder of more packages, `token_s` the engine's time for a speech token: 0.04 is real
    time. `program` is REAL for the engine that the flags choose."""
    listen = [f"--{name}=127.0.0.1:0" for name in ("listen", "admin-listen", "http-listen")]
    program = PROGRAM.format(before=before, script=script, token_s=token_s)
    command = [*within, sys.executable, "-c", program, *listen, "--max-streams", "8", *flags]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (PYTHONPATH, path)))}
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=log, env=environment
        )
        try:
            async with asyncio.timeout(120):
                lines = await _startup_lines(process, Path(log.name))
                yield Server(process, Path(log.name), lines["address"], lines["admin"], lines["http"])
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _startup_lines(process: asyncio.subprocess.Process, log: Path) -> dict[str, str]:
    assert process.stdout is not None
    found: dict[str, str] = {}
    while "ready" not in found:
        line = (await process.stdout.readline()).decode()
        assert line, log.read_text()  # noqa: ASYNC240
        found |= {name: match[1] for name, pattern in _LINES.items() if (match := pattern.search(line))}
    return found


async def speaks(client: mynah.Client, text: str = "All is well.", **settings: object) -> int:
    """The bytes of a whole text's audio."""
    return sum([len(chunk.data) async for chunk in client.synthesize(text, **settings)])  # type: ignore[arg-type]


async def error_of(client: mynah.Client, text: str, **settings: object) -> mynah.MynahError:
    """The error that speaking this text ends with."""
    try:
        await speaks(client, text, **settings)
    except mynah.MynahError as error:
        return error
    raise AssertionError("it spoke")
