"""A server process on the fake engine, for benches of the service alone, and a handle for it.

`python -m bench.scripted_server LOAD [flags of mynah-serve]`, where LOAD is a `Load` as JSON. Every chunk carries the
time at which the engine yielded it. The metrics page also counts tasks and engine streams.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic_ns, thread_time

import numpy as np
from prometheus_client import Gauge

from engines.api import AudioChunk, Event, Samples, Segment, SpeechStream
from engines.config import Sampling
from engines.errors import EngineFailure
from engines.fake import FakeEngine, Script
from engines.voice import Voice
from service import stderr_filter
from service.__main__ import serve
from service.config import read_config
from service.models import Models
from service.telemetry import logs
from service.telemetry.metrics import EngineMetrics
from service.voices import files
from service.voices.files import FolderFiles

_STAMP_WORDS, _WORD_BITS = 5, 15  # 75 bits of nanoseconds in the first samples' 16-bit values
_TICK_S = 0.005
STAMP_BYTES = 2 * _STAMP_WORDS
_LINES = {
    "address": re.compile(r"listening on (\S+)"),
    "admin": re.compile(r"readiness at http://(\S+)"),
    "http": re.compile(r"HTTP at https?://(\S+)"),
    "ready": re.compile(r"(serving) after"),
}


@dataclass(frozen=True)
class Load:
    """The engine's behaviour: chunks of `hop_tokens` every `hop_tokens` x `token_s`; some segments fail half-way."""

    token_s: float = 0.04
    hop_tokens: int = 5
    fault_share: float = 0.0  # of segments
    seed: int = 1
    hangs_on: str = ""  # text in a segment whose decoding then never returns
    hung_read_s: float = 0.0  # how long reading the file of a voice hangs whose id begins with "hung"
    watches_passes: bool = False  # whether the metrics page has the event loop's longest pass; costs 200 wakes a second


class StampedEngine(FakeEngine):
    """The fake engine with stamped chunks and scripted faults."""

    def __init__(self, load: Load, max_streams: int) -> None:
        script = Script(
            token_s=load.token_s,
            first_hop_tokens=load.hop_tokens,
            hop_tokens=load.hop_tokens,
            hangs_on=load.hangs_on,
        )
        super().__init__(script, max_streams=max_streams, observer=EngineMetrics())
        self._load = load
        self._random = random.Random(load.seed)

    async def open(self, voice: Voice, sampling: Sampling) -> StampedStream:  # type: ignore[override]
        return StampedStream(await super().open(voice, sampling), self._load.fault_share, self._random)


class StampedStream:
    """A SpeechStream around another one."""

    def __init__(self, inner: SpeechStream, fault_share: float, rng: random.Random) -> None:
        self._inner, self._fault_share, self._random = inner, fault_share, rng

    def prepare(self, segment: Segment) -> None:
        self._inner.prepare(segment)

    async def speak(self, segment: Segment) -> AsyncGenerator[Event, None]:
        fails_after = self._random.randrange(4) if self._random.random() < self._fault_share else None
        chunks = 0
        async with aclosing(self._inner.speak(segment)) as events:
            async for event in events:
                if isinstance(event, AudioChunk):
                    if chunks == fails_after:
                        raise EngineFailure("a scripted fault")
                    chunks += 1
                    event = replace(event, samples=stamped(event.samples))
                yield event

    async def close(self) -> None:
        await self._inner.close()


def stamped(samples: Samples) -> Samples:
    """The samples with the current time in front, which survives 16-bit PCM at 24 kHz."""
    now_ns = monotonic_ns()
    words = [(now_ns >> (_WORD_BITS * i)) & (2**_WORD_BITS - 1) for i in range(_STAMP_WORDS)]
    out = samples.copy()
    out[:_STAMP_WORDS] = np.array(words, np.float32) / 32767.0
    return out


def made_at_ns(data: bytes) -> int:
    """The time at which the engine yielded the chunk with this PCM, by `time.monotonic_ns` on the same machine."""
    words = np.frombuffer(data[:STAMP_BYTES], "<i2")
    return sum(int(word) << (_WORD_BITS * i) for i, word in enumerate(words))


@dataclass(frozen=True)
class ScriptedServer:
    """A running server."""

    address: str
    admin: str
    http: str  # empty unless the flags ask for it
    pid: int
    log: Path


class HangingFiles(FolderFiles):
    """A folder in which reading the voices whose ids begin with "hung" takes `hung_read_s`."""

    hung_read_s = 0.0

    def read(self, voice_id: str, max_bytes: int | None = None) -> bytes:
        if voice_id.startswith("hung"):
            threading.Event().wait(self.hung_read_s)
        return super().read(voice_id, max_bytes)


@asynccontextmanager
async def scripted_server(
    load: Load,
    log: Path,
    *flags: str,
    max_files: int | None = None,
    within: Sequence[str] = (),
    ends_with: int = 0,
) -> AsyncIterator[ScriptedServer]:
    """Start a server on free ports, wait until it serves, and at the end stop it with SIGTERM. Logs to a file.

    `max_files` is its hard limit on open files, `within` a command that runs the server.
    Raises RuntimeError if it ends by itself or with a status other than `ends_with`.
    """
    listen = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
    command = [*within, sys.executable, "-m", "bench.scripted_server", json.dumps(asdict(load)), *listen, *flags]
    if max_files is not None:
        command = ["sh", "-c", f'ulimit -n {max_files}; exec "$@"', "sh", *command]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=sink)
    try:
        async with asyncio.timeout(60):
            lines = await _startup_lines(process)
        yield ScriptedServer(lines["address"], lines["admin"], lines.get("http", ""), process.pid, log)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            status = await process.wait()
        if status != ends_with:
            raise RuntimeError(f"the server ended with status {status}; see {log}")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _startup_lines(process: asyncio.subprocess.Process) -> dict[str, str]:
    assert process.stdout is not None
    matched: dict[str, str] = {}
    while "ready" not in matched:
        line = (await process.stdout.readline()).decode()
        if not line:
            raise RuntimeError("the server ended before it served")
        for name, pattern in _LINES.items():
            if match := pattern.search(line):
                matched[name] = match[1]
    return matched


async def _serve(load: Load, flags: list[str]) -> None:
    config = read_config(flags, os.environ)
    stderr_filter.redirect(config.log_format)
    logs.configure(config.log_level, config.log_format)
    engine = StampedEngine(load, config.max_streams)
    HangingFiles.hung_read_s = load.hung_read_s
    if load.hung_read_s:
        files.FolderFiles = HangingFiles  # type: ignore[misc]
    loop = asyncio.get_running_loop()
    held = {
        "tasks": lambda: len(asyncio.all_tasks(loop)),
        "engine_streams": lambda: len(engine.streams),
        "engine_segments": lambda: engine.working,
    }
    for name, count in held.items():
        Gauge(f"bench_{name}", "Objects that the process holds").set_function(count)
    watching = asyncio.create_task(_watch_passes()) if load.watches_passes else None
    await serve(Models([engine]), config)
    if watching is not None:
        watching.cancel()


async def _watch_passes() -> None:
    """Measure how long the event loop computes without a break, in CPU time, so that other processes do not count."""
    longest = Gauge("bench_longest_pass_cpu_s", "CPU time between two ticks of the event loop; most since last scraped")
    most_s = 0.0

    def taken() -> float:
        nonlocal most_s
        most_s, value = 0.0, most_s
        return value

    longest.set_function(taken)
    before_s = thread_time()
    while True:
        await asyncio.sleep(_TICK_S)
        now_s = thread_time()
        most_s, before_s = max(most_s, now_s - before_s), now_s


if __name__ == "__main__":
    asyncio.run(_serve(Load(**json.loads(sys.argv[1])), sys.argv[2:]))
