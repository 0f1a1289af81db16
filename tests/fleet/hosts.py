"""Two hosts simulated on this machine: network namespaces with an address each, and servers in them."""

from __future__ import annotations

import asyncio
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import mynah
from tests.service.test_process import ENVIRONMENT, FAKE

PORT = 50051


@dataclass
class Host:
    """A namespace and its server, if one runs. `script`: further arguments of the fake engine's Script; `flags`: more
    options of the server."""

    name: str
    ip: str
    script: str
    max_streams: int
    flags: tuple[str, ...] = ()
    running: asyncio.subprocess.Process | None = field(default=None)

    @property
    def address(self) -> str:
        return f"{self.ip}:{PORT}"

    async def start(self) -> None:
        """Starts a server; returns when it serves."""
        program = FAKE.replace("token_s=0.002", "token_s=0.02").format(before="pass", script=self.script)
        flags = ["--listen", self.address, "--insecure", "on", "--grace-s", "30"]
        flags += ["--max-streams", str(self.max_streams), *self.flags]
        command = ["ip", "netns", "exec", self.name, sys.executable, "-c", program, *flags]
        self.running = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENVIRONMENT
        )
        assert self.running.stdout is not None
        async with asyncio.timeout(60):
            while b"serving after" not in (line := await self.running.stdout.readline()):
                assert line, f"{self.name} ended while it started"

    async def drain(self) -> None:
        """Sends SIGTERM; returns when the server has exited with status 0."""
        assert self.running is not None
        self.running.send_signal(signal.SIGTERM)
        assert await self.running.wait() == 0

    async def kill(self) -> None:
        """Kills the server, as a power failure would."""
        assert self.running is not None
        self.running.kill()
        await self.running.wait()

    async def streams(self) -> int:
        async with mynah.Client(self.address) as client:
            return (await client.info()).open_streams


@contextmanager
def namespaces(count: int) -> Iterator[list[tuple[str, str]]]:
    """Creates `count` namespaces; yields (name, address) of each. Needs root and iproute2."""
    names = [f"mynah-{secrets.token_hex(3)}" for _ in range(count)]
    try:
        for index, name in enumerate(names):
            outside, inside = name.removeprefix("my"), name
            _ip("netns", "add", name)
            _ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", name)
            _ip("addr", "add", f"10.213.{index}.1/30", "dev", outside)
            _ip("link", "set", outside, "up")
            _ip("-n", name, "addr", "add", f"10.213.{index}.2/30", "dev", inside)
            _ip("-n", name, "link", "set", inside, "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield [(name, f"10.213.{index}.2") for index, name in enumerate(names)]
    finally:
        for name in names:
            subprocess.run(["ip", "link", "del", name.removeprefix("my")], capture_output=True)
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@asynccontextmanager
async def two_servers(
    script: str = "", max_streams: int = 32, voices: tuple[Path | str, Path | str] = ("memory", "memory")
) -> AsyncIterator[tuple[Host, Host]]:
    """Starts two servers, each with its place for voices; kills those that still run at the end."""
    with namespaces(2) as created:
        hosts = [
            Host(name, ip, script, max_streams, ("--voices-dir", str(place)))
            for (name, ip), place in zip(created, voices, strict=True)
        ]
        try:
            await asyncio.gather(*(host.start() for host in hosts))
            yield hosts[0], hosts[1]
        finally:
            for host in hosts:
                if host.running is not None and host.running.returncode is None:
                    await host.kill()
