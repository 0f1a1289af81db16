"""A healthy real-time stream in a process of its own, and the largest silence that its server caused it.

A machine that tests run on is busy. So of each silence between two chunks that part is taken off in which a thread on
the chunks' way was ready to run and had no processor: the server's event loop, the slowest other thread of the server,
and the same of this process. The kernel counts it (`/proc/PID/task/*/schedstat`). What is left is what the server did:
computing, sleeping, waiting for a lock. It is compared with the same stream's silence at rest.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import mynah
from bench.attacks import Healthy

MAX_GAP_S = 0.5  # what a real-time listener may have buffered
_MARGIN_S = 0.3  # above the silence at rest, where that is longer than usual
_CHUNKS_AT_REST = 6
_TIMEOUT_S = 60.0


class Waits:
    """The time that the threads of a process have waited for a processor."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before = self._read()

    def _read(self) -> dict[str, float]:
        waits_s = {}
        for thread in Path(f"/proc/{self._pid}/task").iterdir():
            try:
                waits_s[thread.name] = int((thread / "schedstat").read_text().split()[1]) / 1e9
            except (OSError, IndexError):  # it has ended, or the kernel does not count
                continue
        return waits_s

    def since_last_s(self) -> float:
        """The main thread's wait and the longest of another thread, since the last call."""
        now = self._read()
        waited = {thread: wait_s - self._before.get(thread, 0.0) for thread, wait_s in now.items()}
        self._before = now
        return waited.pop(str(self._pid), 0.0) + max(waited.values(), default=0.0)


class Reporting(Healthy):
    """The stream; prints for each chunk how long it was awaited, and how much of that was waiting for a processor."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self._waits = [Waits(pid), Waits(os.getpid())]
        self._arrived_s = monotonic()

    def arrived(self) -> None:
        now_s = monotonic()
        gap_s, self._arrived_s = now_s - self._arrived_s, now_s
        waited_s = sum(waits.since_last_s() for waits in self._waits)
        print(json.dumps([now_s, gap_s, waited_s]), flush=True)


@dataclass
class Gaps:
    """The silences of the running stream. `at_rest_s` was measured before anything else happened."""

    process: asyncio.subprocess.Process
    at_rest_s: float = 0.0

    @property
    def allowed_s(self) -> float:
        return max(MAX_GAP_S, self.at_rest_s + _MARGIN_S)

    async def largest_s(self, since_s: float, least_chunks: int = 1) -> float:
        """The largest silence that ended after `since_s`, once this many chunks have come from now on."""
        assert self.process.stdout is not None
        called_s, largest_s, later = monotonic(), 0.0, 0
        async with asyncio.timeout(_TIMEOUT_S):
            while later < least_chunks:
                line = await self.process.stdout.readline()
                assert line, "the healthy stream ended"
                arrived_s, gap_s, waited_s = json.loads(line)
                later += arrived_s >= called_s
                if arrived_s >= since_s:
                    largest_s = max(largest_s, gap_s - waited_s)
        return largest_s

    async def check(self, since_s: float, name: str = "") -> None:
        """Asserts that the server has caused no long silence since then, and that the stream goes on."""
        largest_s = await self.largest_s(since_s)
        print(f"{name} gap {largest_s:.2f} s, at rest {self.at_rest_s:.2f} s")
        assert largest_s <= self.allowed_s, f"{name}: the healthy stream was silent for {largest_s:.2f} s"


@asynccontextmanager
async def healthy_stream(address: str, pid: int) -> AsyncIterator[Gaps]:
    """A stream that speaks in real time to the server with this address and process. At the end its gap is checked."""
    command = (sys.executable, "-m", "tests.security.healthy", address, str(pid))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, limit=1 << 20)
    try:
        gaps = Gaps(process)
        await gaps.largest_s(0.0)  # until it speaks
        began_s = monotonic()
        gaps.at_rest_s = await gaps.largest_s(began_s, _CHUNKS_AT_REST)
        began_s = monotonic()
        yield gaps
        await gaps.check(began_s)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def main(address: str, pid: int) -> None:
    async with mynah.Client(address) as client:
        await Reporting(pid).run(client, asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
