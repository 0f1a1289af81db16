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
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import mynah
from bench.attacks import Healthy
from bench.scripted_server import Load, scripted_server

MAX_GAP_S = 0.5  # what a real-time listener may have buffered
_MARGIN_S = 0.3  # above the silence at rest and the control's, where one is longer than usual
_CHUNKS_AT_REST = 6
_TIMEOUT_S = 60.0


class Wait:
    """The time that the main thread of a process has waited for a processor."""

    def __init__(self, pid: int) -> None:
        self._file = Path(f"/proc/{pid}/task/{pid}/schedstat")
        self._before_s = self._read()

    def _read(self) -> float:
        return int(self._file.read_text().split()[1]) / 1e9

    def since_last_s(self) -> float:
        """The time since the last call."""
        before_s, self._before_s = self._before_s, self._read()
        return self._before_s - before_s


class Reporting(Healthy):
    """The stream; prints for each chunk how long it was awaited, and how much of that was waiting for a processor."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self._waits = [Wait(pid), Wait(os.getpid())]
        self._arrived_s = monotonic()

    def arrived(self) -> None:
        now_s = monotonic()
        gap_s, self._arrived_s = now_s - self._arrived_s, now_s
        waited_s = sum(wait.since_last_s() for wait in self._waits)
        print(json.dumps([now_s, gap_s, waited_s]), flush=True)


class Listener:
    """A process that listens to a stream of this server, and tells of each chunk."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._seen: list[tuple[float, float]] = []  # when a silence ended, and how long it was

    async def largest_s(self, since_s: float, least_chunks: int = 1) -> float:
        """The largest silence that ended after `since_s`, once this many chunks have come from now on."""
        assert self._process.stdout is not None
        called_s, later = monotonic(), 0
        async with asyncio.timeout(_TIMEOUT_S):
            while later < least_chunks:
                line = await self._process.stdout.readline()
                assert line, "the healthy stream ended"
                arrived_s, gap_s, waited_s = json.loads(line)
                later += arrived_s >= called_s
                self._seen.append((arrived_s, gap_s - waited_s))
        return max((gap_s for arrived_s, gap_s in self._seen if arrived_s >= since_s), default=0.0)


@asynccontextmanager
async def listener(address: str, pid: int) -> AsyncIterator[Listener]:
    """A listener that has received its first chunk from the server with this address and process."""
    command = (sys.executable, "-m", "tests.security.healthy", address, str(pid))
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
async def healthy_stream(address: str, pid: int, folder: Path) -> AsyncIterator[Gaps]:
    """A stream that speaks in real time to the server with this address and process, and its control."""
    async with (
        scripted_server(Load(), folder / "control.log", "--max-streams", "4") as other,
        listener(address, pid) as attacked,
        listener(other.address, other.pid) as control,
    ):
        began_s = monotonic()
        gaps = Gaps(attacked, control, await attacked.largest_s(began_s, _CHUNKS_AT_REST))
        yield gaps


async def main(address: str, pid: int) -> None:
    async with mynah.Client(address) as client:
        with suppress(mynah.MynahError):  # the server has ended; who reads the lines sees their end
            await Reporting(pid).run(client, asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
