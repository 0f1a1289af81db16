"""A server process with the fake engine, for benches of the service without a model.

`python -m bench.scripted_server LOAD [flags of mynah-serve]`, where LOAD is a `Load` as JSON. Every chunk starts with a
timestamp of the engine, and the metrics page also has counts of tasks, streams and segments.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import re
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic_ns

import numpy as np
from prometheus_client import Gauge

from engines.api import AudioChunk, Event, Samples, Segment, SpeechStream
from engines.config import Sampling
from engines.errors import EngineFailure
from engines.fake import FakeEngine, Script
from engines.voice import Voice
from service.__main__ import serve
from service.config import read_config
from service.telemetry.metrics import EngineMetrics

_STAMP_WORDS, _WORD_BITS = 5, 15  # 75 bits of nanoseconds in the first samples' 16-bit values
STAMP_BYTES = 2 * _STAMP_WORDS
_LINES = {
    "address": re.compile(r"listening on (\S+)"),
    "admin": re.compile(r"readiness at http://(\S+)"),
    "http": re.compile(r"HTTP at http://(\S+)"),
    "ready": re.compile(r"(serving) after"),
}


@dataclass(frozen=True)
class Load:
    """The engine's load: a chunk of `hop_tokens` every `hop_tokens` x `token_s`, and failures within segments."""

    token_s: float = 0.04
    hop_tokens: int = 5
    fault_share: float = 0.0  # the share of segments that fail
    seed: int = 1


class StampedEngine(FakeEngine):
    """A fake engine whose streams put timestamps into chunks, and sometimes fail."""

    def __init__(self, load: Load, max_streams: int) -> None:
        script = Script(token_s=load.token_s, first_hop_tokens=load.hop_tokens, hop_tokens=load.hop_tokens)
        super().__init__(script, max_streams=max_streams, observer=EngineMetrics())
        self._load = load
        self._random = random.Random(load.seed)

    async def open(self, voice: Voice, sampling: Sampling) -> StampedStream:  # type: ignore[override]
        return StampedStream(await super().open(voice, sampling), self._load.fault_share, self._random)


class StampedStream:
    """A SpeechStream that wraps another one."""

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
                        raise EngineFailure("A scripted failure.")
                    chunks += 1
                    event = replace(event, samples=stamped(event.samples))
                yield event

    async def close(self) -> None:
        await self._inner.close()


def stamped(samples: Samples) -> Samples:
    """Returns the samples with a timestamp in the first ones, which 16-bit PCM at 24 kHz preserves."""
    now_ns = monotonic_ns()
    words = [(now_ns >> (_WORD_BITS * i)) & (2**_WORD_BITS - 1) for i in range(_STAMP_WORDS)]
    out = samples.copy()
    out[:_STAMP_WORDS] = np.array(words, np.float32) / 32767.0
    return out


def made_at_ns(data: bytes) -> int:
    """Returns the timestamp of a chunk's PCM, on this machine's `time.monotonic_ns`."""
    words = np.frombuffer(data[:STAMP_BYTES], "<i2")
    return sum(int(word) << (_WORD_BITS * i) for i, word in enumerate(words))


@dataclass(frozen=True)
class ScriptedServer:
    """A running server."""

    address: str
    admin: str
    http: str  # empty without --http-listen
    pid: int
    log: Path


@asynccontextmanager
async def scripted_server(load: Load, log: Path, *flags: str) -> AsyncIterator[ScriptedServer]:
    """Run a server on free ports until the block ends, then stop it with SIGTERM. Its log is written to a file.

    Raises RuntimeError if it stops early or with a status other than 0.
    """
    listen = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
    command = [sys.executable, "-m", "bench.scripted_server", json.dumps(asdict(load)), *listen, *flags]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=sink)
    try:
        async with asyncio.timeout(60):
            addresses = await _addresses(process)
        yield ScriptedServer(addresses["address"], addresses["admin"], addresses.get("http", ""), process.pid, log)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            status = await process.wait()
        if status != 0:
            raise RuntimeError(f"The server stopped with status {status}; see {log}.")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _addresses(process: asyncio.subprocess.Process) -> dict[str, str]:
    """Returns the addresses in the server's output, once it is ready."""
    assert process.stdout is not None
    addresses: dict[str, str] = {}
    while "ready" not in addresses:
        line = (await process.stdout.readline()).decode()
        if not line:
            raise RuntimeError("The server stopped before it was ready.")
        for name, pattern in _LINES.items():
            if match := pattern.search(line):
                addresses[name] = match[1]
    return addresses


async def _serve(load: Load, flags: list[str]) -> None:
    config = read_config(flags, os.environ)
    engine = StampedEngine(load, config.max_streams)
    loop = asyncio.get_running_loop()
    counts = {
        "tasks": lambda: len(asyncio.all_tasks(loop)),
        "engine_streams": lambda: len(engine.streams),
        "engine_segments": lambda: engine.working,
    }
    for name, count in counts.items():
        Gauge(f"bench_{name}", "Current number in this process.").set_function(count)
    await serve(engine, config)


if __name__ == "__main__":
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(_serve(Load(**json.loads(sys.argv[1])), sys.argv[2:]))
