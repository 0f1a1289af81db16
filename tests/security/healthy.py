"""A healthy real-time stream, and the largest silence that its server caused it.

A machine that tests run on is busy, with the attackers, too. So of each silence between two chunks that time is taken
off in which the server's event loop, or the listener's, was ready to run and had no processor: the kernel counts it
(`/proc/PID/task/TID/schedstat`). What is left is compared with the same stream's silence at rest, and with that of a
control: the same stream from another server on the same machine, at the same time, which is not attacked.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic

import mynah
from bench.attacks import Healthy
from bench.scripted_server import Load, scripted_server
from tests.security.waits import Wait

MAX_GAP_S = 0.5  # what a real-time listener may have buffered
_MARGIN_S = 0.3  # above the silence at rest and the control's, where one is longer than usual
_CHUNKS_AT_REST = 6
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Access:
    """What a server asks of its clients: a key, or a certificate of an authority."""

    api_key: str = ""
    authority: str = ""  # the server's; this and the next two are files
    certificate: str = ""
    key: str = ""

    def client(self, address: str) -> mynah.Client:
        tls = mynah.Tls(Path(self.authority), None, Path(self.certificate), Path(self.key)) if self.authority else False
        return mynah.Client(address, tls=tls, api_key=self.api_key or None)


class Reporting(Healthy):
    """The stream; prints for each chunk how long it was awaited, and how much of that was waiting for a processor."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self._waits = [Wait(pid), Wait(os.getpid())]
        self._arrived_s = monotonic()

    def arrived(self) -> None:
        self.tell("")

    def tell(self, end: str) -> None:
        """`end` is the reason for which the stream has ended, "" for a chunk."""
        now_s = monotonic()
        gap_s, self._arrived_s = now_s - self._arrived_s, now_s
        try:
            waited_s = sum(wait.since_last_s() for wait in self._waits)
        except OSError:  # the server's process has ended
            waited_s = 0.0
        print(json.dumps([now_s, gap_s, waited_s, end]), flush=True)


class Listener:
    """A process that listens to a stream of this server, and tells of each chunk."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._seen: list[tuple[float, float]] = []  # when a silence ended, and how long it was

    async def largest_s(self, since_s: float, least_chunks: int = 1) -> float:
        """The largest silence that ended after `since_s`, once this many chunks have come from now on."""
        called_s, later = monotonic(), 0
        async with asyncio.timeout(_TIMEOUT_S):
            while later < least_chunks:
                arrived_s, end = await self._next()
                assert not end, f"the healthy stream ended with {end}"
                later += arrived_s >= called_s
        return self._since(since_s)

    async def end(self, since_s: float) -> tuple[float, str]:
        """Waits for the stream's end. Returns the largest silence since then, up to it, and its reason."""
        async with asyncio.timeout(_TIMEOUT_S):
            while not (end := (await self._next())[1]):
                pass
        return self._since(since_s), end

    def _since(self, since_s: float) -> float:
        return max((gap_s for arrived_s, gap_s in self._seen if arrived_s >= since_s), default=0.0)

    async def _next(self) -> tuple[float, str]:
        """When the next chunk came, and ""; or when the stream ended, and the reason."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, "the healthy stream's process ended"
        arrived_s, gap_s, waited_s, end = json.loads(line)
        self._seen.append((arrived_s, gap_s - waited_s))
        return arrived_s, end


@asynccontextmanager
async def listener(address: str, pid: int, access: Access = Access()) -> AsyncIterator[Listener]:
    """A listener that has received its first chunk from the server with this address and process."""
    command = (sys.executable, "-m", "tests.security.healthy", address, str(pid), json.dumps(asdict(access)))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, limit=1 << 20)
    try:
        listening = Listener(process)
        await listening.largest_s(0.0)
        yield listening
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@dataclass
class Gaps:
    """The silences of the stream and of its control. `at_rest_s` was measured before anything else happened."""

    attacked: Listener
    control: Listener
    at_rest_s: float

    async def check(self, since_s: float, name: str = "") -> None:
        """Asserts that the server has caused no long silence since then, and that the stream goes on."""
        gap_s, usual_s = await self.attacked.largest_s(since_s), await self.control.largest_s(since_s)
        allowed_s = max(MAX_GAP_S, self.at_rest_s + _MARGIN_S, usual_s + _MARGIN_S)
        figures = f"{gap_s:.2f} s, allowed {allowed_s:.2f}, at rest {self.at_rest_s:.2f}, control {usual_s:.2f}"
        print(f"{name or 'all'}: gap {figures}")
        assert gap_s <= allowed_s, f"{name}: the healthy stream was silent for {figures}"


@asynccontextmanager
async def healthy_stream(address: str, pid: int, folder: Path, access: Access = Access()) -> AsyncIterator[Gaps]:
    """A stream that speaks in real time to the server with this address and process, and its control."""
    async with (
        scripted_server(Load(), folder / "control.log", "--max-streams", "4") as other,
        listener(address, pid, access) as attacked,
        listener(other.address, other.pid) as control,
    ):
        began_s = monotonic()
        gaps = Gaps(attacked, control, await attacked.largest_s(began_s, _CHUNKS_AT_REST))
        yield gaps


async def main(address: str, pid: int, access: Access) -> None:
    reporting = Reporting(pid)
    async with access.client(address) as client:
        try:
            await reporting.run(client, asyncio.Event())
        except mynah.MynahError as error:
            reporting.tell(error.reason)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), Access(**json.loads(sys.argv[3]))))
