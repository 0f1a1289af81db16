"""A server process on the scripted engine, with a healthy real-time stream, for tests that attack it.

What an attack costs the stream is measured twice: as its silence (`tests/security/healthy.py`), and as CPU time of the
server's event loop without a break.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import mynah
from bench.attacks import Target, pair
from bench.scripted_server import Load, ScriptedServer, scripted_server
from tests.security.healthy import Gaps, healthy_stream
from tests.service.telemetry.scraping import get, scrape

MAX_PASS_CPU_S = 0.4  # a real-time stream's buffer; it is 0.005 s at rest


@dataclass
class Attacked:
    """The server under attack."""

    server: ScriptedServer
    client: mynah.Client
    gaps: Gaps

    @property
    def target(self) -> Target:
        return Target(self.client, self.http, pair(self.server.address))

    @property
    def http(self) -> tuple[str, int]:
        return pair(self.server.http)

    async def metric(self, name: str) -> float:
        return (await scrape(self.server.admin))(name)

    async def check_serves(self) -> None:
        """New calls are answered on every port."""
        assert [chunk async for chunk in self.client.synthesize("All is well.")]
        assert (await get(self.server.admin, "/readyz")).status == 200
        reader, writer = await asyncio.open_connection(*self.http)
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()


@asynccontextmanager
async def attacked(folder: Path, *flags: str, max_files: int | None = None) -> AsyncIterator[Attacked]:
    """Inside, the test attacks. At the end the healthy stream must have gone on, and no pass may have been long."""
    http = ("--http-listen", "127.0.0.1:0", "--max-streams", "64")
    async with (
        scripted_server(Load(watches_passes=True), folder / "server.log", *http, *flags, max_files=max_files) as server,
        mynah.Client(server.address) as client,
        healthy_stream(server.address, server.pid, folder) as gaps,
    ):
        at = Attacked(server, client, gaps)
        await at.metric("bench_longest_pass_cpu_s")  # resets it
        began_s = monotonic()
        yield at
        await at.check_serves()
        await gaps.check(began_s)
        longest_s = await at.metric("bench_longest_pass_cpu_s")
        print(f"longest pass {longest_s:.3f} s of CPU")
        assert longest_s < MAX_PASS_CPU_S
