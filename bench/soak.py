"""`make soak`: misbehaving clients for minutes; afterwards the server must hold nothing of them.

Fails on a growing memory, a gauge that does not return to zero, a task or a file that stays, and on any stream that is
not answered. The engine is scripted: ten times as fast as speech, and failing now and then.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import grpc.aio
from prometheus_client.parser import text_string_to_metric_families as parse

from bench.load.arrivals import TEXTS
from bench.malformed import Malformed, Request, answer, supply
from bench.report import BUILD, publish, table
from bench.scripted_server import Load, ScriptedServer, scripted_server
from mynah.client.errors import MynahError
from mynah.client.transport import BidiStream, open_channel
from mynah.v1 import speech_pb2, speech_pb2_grpc

CLIENTS = 32
_MAX_STREAMS = 24  # fewer than clients, so that some are refused
_MAX_TEXT_CHARS = 2000
_STALL_S = 1.5
_WARM_UP_S = 10.0
_REST_S = 15.0  # for everything to be let go of afterwards
_ENDS = {"", "STREAMS_EXHAUSTED", "ENGINE_FAILURE", "READER_STALLED"}  # how a stream of ours may end
_SETTINGS = speech_pb2.SpeechSettings(sampling=speech_pb2.Sampling(seed=1))
HELD = ("mynah_streams_active", "mynah_t3_kv_cache_ratio", "bench_engine_streams", "bench_engine_segments")


@dataclass(frozen=True)
class Sample:
    """What the server's process held at a moment."""

    at_s: float
    rss_bytes: float
    files: dict[str, int]  # kinds of what is open
    tasks: float
    held: tuple[float, ...]  # as HELD


class Clients:
    """All clients together: each does one thing after another until the soak ends."""

    def __init__(self, channel: grpc.aio.Channel, seed: int, answer_s: float) -> None:
        self.ends: Counter[str] = Counter()  # "what: how it ended"
        self.wrong: Counter[str] = Counter()
        self._answer_s = answer_s  # every stream ends within this, one way or another
        self._channel = channel
        self._stub = speech_pb2_grpc.SpeechStub(channel)  # type: ignore[no-untyped-call]
        self._random = random.Random(seed)
        self._malformed = supply(seed, _MAX_TEXT_CHARS)
        self._doings: dict[str, tuple[int, Callable[[], Awaitable[None]]]] = {
            "listen": (25, self._listen),
            "cancel": (25, self._cancel),
            "leave": (15, self._leave),
            "read slowly": (10, self._read_slowly),
            "stop reading": (5, self._stop_reading),
            "nonsense": (20, self._nonsense),
        }

    async def run(self, until_s: float) -> None:
        names = list(self._doings)
        weights = [weight for weight, _ in self._doings.values()]
        while asyncio.get_running_loop().time() < until_s:
            (name,) = self._random.choices(names, weights)
            end = await self._end_of(self._doings[name][1])
            self.ends[f"{name}: {end or 'well'}"] += 1
            if end not in _ENDS:
                self.wrong[f"{name}: {end}"] += 1
            if end == "STREAMS_EXHAUSTED":  # come back a little later, as one is told to
                await asyncio.sleep(self._random.uniform(0.0, 0.4))

    async def _end_of(self, doing: Callable[[], Awaitable[None]]) -> str:
        try:
            async with asyncio.timeout(self._answer_s):
                await doing()
        except MynahError as error:
            return error.reason
        except TimeoutError:
            return "UNANSWERED"
        return ""

    @asynccontextmanager
    async def _stream(self) -> AsyncIterator[BidiStream]:
        call = BidiStream(self._stub.StreamSpeech())
        try:
            await call.write(Request(open=speech_pb2.OpenStream(settings=_SETTINGS)))
            await call.read()
            text = " ".join(self._random.choices(TEXTS, k=self._random.randint(1, 4)))
            await self._say(call, text, flush_id=1)
            yield call
        finally:
            await call.close()

    async def _listen(self) -> None:
        async with self._stream() as call:
            await call.done_writing()
            await _to_the_end(call)

    async def _cancel(self) -> None:
        """In the middle of speech, perhaps twice; then something else is said."""
        async with self._stream() as call:
            for turn in range(self._random.randint(1, 2)):
                await self._read_some(call)
                await call.write(Request(cancel=speech_pb2.Cancel()))
                while (message := await call.read()) is not None and not message.HasField("cancelled"):
                    pass
                await self._say(call, "Something else.", flush_id=2 + turn)
            await call.done_writing()
            await _to_the_end(call)

    async def _leave(self) -> None:
        async with self._stream() as call:
            await self._read_some(call)

    async def _read_slowly(self) -> None:
        async with self._stream() as call:
            await call.done_writing()
            while await call.read() is not None:  # noqa: ASYNC110 - a slow reader, not a poll
                await asyncio.sleep(self._random.uniform(0.0, 0.2))

    async def _stop_reading(self) -> None:
        """Say a lot and read nothing until the server must have had enough."""
        async with self._stream() as call:
            await self._say(call, " ".join(TEXTS), flush_id=2)
            await call.done_writing()
            await asyncio.sleep(_STALL_S * 3)
            await _to_the_end(call)

    async def _nonsense(self) -> None:
        request: Malformed = next(self._malformed)
        if told := await answer(self._channel, request):
            self.wrong[told] += 1

    async def _say(self, call: BidiStream, text: str, flush_id: int) -> None:
        await call.write(Request(text=speech_pb2.TextFragment(content=text)))
        await call.write(Request(flush=speech_pb2.Flush(flush_id=flush_id)))

    async def _read_some(self, call: BidiStream) -> None:
        """Until an event that is drawn, or the end of what was said."""
        for _ in range(self._random.randint(0, 6)):
            message = await call.read()
            if message is None or message.HasField("flushed"):
                return


async def _to_the_end(call: BidiStream) -> None:
    while await call.read() is not None:
        pass


async def look(server: ScriptedServer, began_s: float) -> Sample:
    """What the server holds now."""
    host, _, port = server.admin.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
    page = (await reader.read()).partition(b"\r\n\r\n")[2].decode()
    writer.close()
    values: dict[str, Any] = {s.name: s.value for family in parse(page) for s in family.samples if not s.labels}
    return Sample(
        asyncio.get_running_loop().time() - began_s,
        values["process_resident_memory_bytes"],
        open_files(server.pid),
        values["bench_tasks"],
        tuple(values[name] for name in HELD),
    )


async def soak(
    seconds: float, clients: int, seed: int, answer_s: float
) -> tuple[list[Sample], Sample, Sample, Clients]:
    """The samples under load, the server at rest before and after, and what became of the clients."""
    flags = ["--max-streams", str(_MAX_STREAMS), "--max-pending-text-chars", str(_MAX_TEXT_CHARS)]
    flags += ["--stall-timeout-s", str(_STALL_S), "--log-level", "warning"]
    load = Load(token_s=0.004, fault_share=0.05, seed=seed)
    clock = asyncio.get_running_loop().time
    async with scripted_server(load, BUILD / "soak.log", *flags) as server:
        async with _clients(server, seed, answer_s) as first:  # what is made once and stays is made now
            await asyncio.gather(*(first.run(clock() + _WARM_UP_S) for _ in range(clients)))
        before = await _at_rest(server, None)
        began_s = clock()
        samples: list[Sample] = []
        async with _clients(server, seed + 1, answer_s) as all_clients:
            running = asyncio.gather(*(all_clients.run(began_s + seconds) for _ in range(clients)))
            while clock() < began_s + seconds and not running.done():
                samples.append(await look(server, began_s))
                await asyncio.wait([running], timeout=seconds / 200)
            await running
        after = await _at_rest(server, before)
    return samples, before, after, all_clients


@asynccontextmanager
async def _clients(server: ScriptedServer, seed: int, answer_s: float) -> AsyncIterator[Clients]:
    channel = open_channel(server.address, None)
    try:
        yield Clients(channel, seed, answer_s)
    finally:
        await channel.close()


async def _at_rest(server: ScriptedServer, before: Sample | None) -> Sample:
    """The first look at which nothing is held, and no more than before; the last one if that never comes."""
    clock = asyncio.get_running_loop().time
    began_s = clock()
    while True:
        sample = await look(server, began_s)
        calm = not any(sample.held) and (before is None or not left_over(before, sample))
        if calm or clock() - began_s > _REST_S:
            return sample
        await asyncio.sleep(0.25)


def left_over(before: Sample, after: Sample) -> list[str]:
    """What a server at rest holds that it did not hold before."""
    found = [f"{name} is {value:g}" for name, value in zip(HELD, after.held, strict=True) if value]
    if (more := after.tasks - before.tasks) > 0:
        found.append(f"{more:g} tasks are left")
    if more_files := Counter(after.files) - Counter(before.files):
        found.append(f"files are left open: {dict(more_files)}")
    return found


def open_files(pid: int) -> dict[str, int]:
    """What a process has open, by kind: "socket", "anon_inode:[eventfd]", a path."""
    found: Counter[str] = Counter()
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            found[re.sub(r":\[\d+\]$", "", os.readlink(handle))] += 1
    return dict(found)


def growth(samples: Sequence[Sample]) -> float:
    """Share by which memory grew over the second half: the median slope of any two points, times its length."""
    half = samples[len(samples) // 2 :]
    thinned = half[:: max(1, len(half) // 60)]
    slopes = [
        (b.rss_bytes - a.rss_bytes) / (b.at_s - a.at_s)
        for i, a in enumerate(thinned)
        for b in thinned[i + 1 :]
        if b.at_s > a.at_s
    ]
    return median(slopes) * (half[-1].at_s - half[0].at_s) / mean(sample.rss_bytes for sample in half)


def complaints(
    samples: Sequence[Sample], before: Sample, after: Sample, wrong: Counter[str], most_growth: float = 0.02
) -> list[str]:
    """Why the soak failed; empty when it did not."""
    found = left_over(before, after)
    if (grown := growth(samples)) > most_growth:
        found.append(f"memory grew by {grown:.1%} over the second half; allowed {most_growth:.0%}")
    return found + [f"{count} x {told}" for told, count in wrong.most_common()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--seed", type=int, default=1)
    slow = "seconds after which a stream without an end counts as unanswered; use more on a busy machine"
    warm = "share by which memory may grow over the second half (default %(default)g); a minute is too short"
    parser.add_argument("--most-growth", type=float, default=0.02, help=warm)
    parser.add_argument("--answer-s", type=float, default=30.0, help=slow)
    given = parser.parse_args()
    samples, before, after, clients = asyncio.run(soak(given.seconds, given.clients, given.seed, given.answer_s))
    found = complaints(samples, before, after, clients.wrong, given.most_growth)
    text = table(["what clients did, and the end of it", "times"], sorted(clients.ends.items()))
    rss_mb = [round(sample.rss_bytes / 1e6, 1) for sample in samples]
    text += f"\n\nmemory {rss_mb[0]} MB at first, {rss_mb[len(rss_mb) // 2]} half-way, {rss_mb[-1]} at the end; "
    text += f"growth over the second half {growth(samples):+.2%}\n"
    text += "\n".join(f"FAILED: {why}" for why in found) or "nothing is left"
    result = {
        "seconds": given.seconds,
        "growth": round(growth(samples), 4),
        "rss_mb": rss_mb[:: len(rss_mb) // 20 or 1],
    }
    ends = dict(sorted(clients.ends.items()))
    publish("soak", text, {**result, "ends": ends, "before": asdict(before), "after": asdict(after), "failed": found})
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
