"""`make bench-service`: the cost of the service itself, on a scripted engine.

Measures the overhead per chunk at 64 real-time streams, 10,000 malformed requests, the time from a cancel to a free
slot, and refusals. Client and server are two processes.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic_ns, perf_counter
from typing import Any

import grpc.aio

from bench.malformed import Request, answer, supply
from bench.report import BUILD, publish, table
from bench.scripted_server import Load, ScriptedServer, made_at_ns, scripted_server
from mynah.client.errors import ServerBusy
from mynah.client.transport import BidiStream, open_channel
from mynah.v1 import speech_pb2, speech_pb2_grpc
from service.load.figures import percentile

STREAMS = 64
MAX_TEXT_CHARS = 2000
_SENTENCE = "This sentence is as long as many others are, and it is spoken again and again. "  # one token per char
_FLAGS = ("--max-pending-text-chars", str(MAX_TEXT_CHARS), "--log-level", "warning")
_FULL = "STREAMS_EXHAUSTED"


@dataclass(frozen=True)
class Measured:
    """Milliseconds of one kind of event, and their goals."""

    name: str
    values_ms: Sequence[float]
    goal_p50_ms: float | None = None
    goal_p99_ms: float | None = None

    def row(self) -> tuple[object, ...]:
        p50, p99 = percentile(self.values_ms, 50), percentile(self.values_ms, 99)
        met = all(goal is None or value <= goal for value, goal in ((p50, self.goal_p50_ms), (p99, self.goal_p99_ms)))
        goals = f"{self.goal_p50_ms or '-'} / {self.goal_p99_ms or '-'}"
        return self.name, len(self.values_ms), p50, p99, max(self.values_ms), goals, "yes" if met else "NO"

    def json(self) -> dict[str, object]:
        percentiles = {f"p{p}_ms": round(percentile(self.values_ms, p), 3) for p in (50, 95, 99)}
        return {"n": len(self.values_ms), **percentiles, "met": self.row()[-1] == "yes"}


class Talker:
    """One stream of a client."""

    def __init__(self, stub: speech_pb2_grpc.SpeechStub) -> None:
        self._call = BidiStream(stub.StreamSpeech())

    async def open(self) -> None:
        """Open the stream. Raises MynahError, e.g. ServerBusy."""
        await self._call.write(Request(open=speech_pb2.OpenStream()))
        await self._call.read()

    async def say(self, sentences: int) -> None:
        await self._call.write(Request(text=speech_pb2.TextFragment(content=_SENTENCE * sentences)))

    async def end(self) -> None:
        await self._call.done_writing()

    async def read(self) -> Any:
        return await self._call.read()

    async def cancel(self) -> float:
        """Cancel. Returns the milliseconds until the server has freed everything and answered."""
        began_s = perf_counter()
        await self._call.write(Request(cancel=speech_pb2.Cancel()))
        while (answer := await self._call.read()) is not None:
            if answer.HasField("cancelled"):
                return (perf_counter() - began_s) * 1e3
        raise RuntimeError("the stream ended before its cancel was answered")

    async def leave(self) -> None:
        """End the call, as a client does that disconnects."""
        await self._call.close()


async def overhead(server: ScriptedServer, streams: int, seconds: float) -> list[float]:
    """Milliseconds between the engine yielding a chunk and the client receiving it, at `streams` real-time streams."""
    delays: list[float] = []
    rng = random.Random(5)

    async def listen(stub: speech_pb2_grpc.SpeechStub) -> None:
        await asyncio.sleep(rng.random())  # so that the streams are not in step
        talker = Talker(stub)
        await talker.open()
        await talker.say(max(1, round(seconds / (len(_SENTENCE) * 0.04))))
        await talker.end()
        while (message := await talker.read()) is not None:
            if message.HasField("audio"):
                delays.append((monotonic_ns() - made_at_ns(message.audio.data)) / 1e6)
        await talker.leave()

    async with stub_of(server) as stub, asyncio.TaskGroup() as tasks:
        for _ in range(streams):
            tasks.create_task(listen(stub))
    return delays


async def malformed(server: ScriptedServer, count: int) -> tuple[Counter[str], float]:
    """Wrong answers by kind, and requests per second."""
    wrong: Counter[str] = Counter()
    requests = itertools.islice(supply(7, MAX_TEXT_CHARS), count)
    began_s = perf_counter()

    async def send_some(channel: grpc.aio.Channel) -> None:
        for request in requests:  # shared by all senders
            if fault := await answer(channel, request):
                wrong[fault] += 1

    channel = open_channel(server.address, None)
    await asyncio.gather(*(send_some(channel) for _ in range(16)))
    await channel.close()
    return wrong, count / (perf_counter() - began_s)


async def full_house(server: ScriptedServer, streams: int, times: int) -> dict[str, list[float]]:
    """Milliseconds of cancels, of slots that change hands, and of refusals, while every slot is in use."""
    times_ms: dict[str, list[float]] = {"cancel": [], "slot": [], "refusal": []}
    async with stub_of(server) as stub:
        talkers = [Talker(stub) for _ in range(streams)]
        listening: dict[Talker, asyncio.Task[None]] = {}
        for talker in talkers:
            await talker.open()
            await talker.say(20)
            listening[talker] = asyncio.create_task(_listen(talker))
        for turn in range(times):
            times_ms["refusal"].append(await refusal_ms(stub))
            talker = talkers[turn % streams]
            await _stop(listening.pop(talker))
            times_ms["cancel"].append(await talker.cancel())
            began_s = perf_counter()
            await talker.leave()
            talkers[turn % streams] = newcomer = await squeeze_in(stub)
            times_ms["slot"].append((perf_counter() - began_s) * 1e3)
            await newcomer.say(20)
            listening[newcomer] = asyncio.create_task(_listen(newcomer))
        for talker in talkers:
            await _stop(listening[talker])
            await talker.leave()
    return times_ms


async def refusal_ms(stub: speech_pb2_grpc.SpeechStub) -> float:
    """Milliseconds until a full server refuses a stream."""
    began_s = perf_counter()
    talker = Talker(stub)
    try:
        await talker.open()
    except ServerBusy as error:
        if error.reason == _FULL and error.retryable:
            return (perf_counter() - began_s) * 1e3
        raise
    finally:
        await talker.leave()
    raise RuntimeError("a full server admitted another stream")


async def squeeze_in(stub: speech_pb2_grpc.SpeechStub) -> Talker:
    """Ask for a stream again and again until a slot is free."""
    while True:
        talker = Talker(stub)
        try:
            await talker.open()
            return talker
        except ServerBusy:
            await talker.leave()


async def _listen(talker: Talker) -> None:
    while await talker.read() is not None:
        pass


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def stub_of(server: ScriptedServer) -> AsyncIterator[speech_pb2_grpc.SpeechStub]:
    channel = open_channel(server.address, None)
    try:
        yield speech_pb2_grpc.SpeechStub(channel)  # type: ignore[no-untyped-call]
    finally:
        await channel.close()


async def bench(streams: int, seconds: float, count: int, times: int) -> tuple[list[Measured], Counter[str], float]:
    """All measurements, each on its own server."""
    flags = ("--max-streams", str(streams), *_FLAGS)
    logs = BUILD / "service-logs"
    async with scripted_server(Load(), logs / "overhead.log", *flags) as server:
        await overhead(server, streams, 1.0)
        delays = await overhead(server, streams, seconds)
    async with scripted_server(Load(), logs / "full.log", *flags) as server:
        full = await full_house(server, streams, times)
    async with scripted_server(Load(), logs / "malformed.log", *flags) as server:
        wrong, per_s = await malformed(server, count)
    wrong["tracebacks in the log"] = sum(log.read_text().count("Traceback") for log in logs.glob("*.log"))
    measured = [
        Measured(f"overhead per chunk, {streams} streams", delays, 1.5, 25.0),
        Measured("cancel to its answer", full["cancel"], None, 50.0),
        Measured("client gone to slot taken anew", full["slot"], None, 50.0),
        Measured("refusal", full["refusal"], None, 10.0),
    ]
    return measured, +wrong, per_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=STREAMS)
    parser.add_argument("--seconds", type=float, default=20.0, help="of speech on each stream (default %(default)s)")
    parser.add_argument("--malformed", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=300, help="cancels and refusals (default %(default)s)")
    args = parser.parse_args()
    measured, wrong, per_s = asyncio.run(bench(args.streams, args.seconds, args.malformed, args.times))
    report(args.malformed, measured, wrong, per_s)


def report(count: int, measured: Sequence[Measured], wrong: Counter[str], per_s: float) -> None:
    header = ["", "n", "p50 ms", "p99 ms", "max ms", "goal p50 / p99", "met"]
    lines = [f"  {n} x {fault}" for fault, n in wrong.most_common(20)]
    verdict = f"{count} malformed requests, {per_s:.0f}/s: {sum(wrong.values())} not answered with a typed error"
    text = "\n".join([table(header, [one.row() for one in measured]), "", verdict, *lines])
    result: dict[str, object] = {one.name: one.json() for one in measured}
    publish("service", text, {**result, "malformed": {"n": count, "wrong": sum(wrong.values()), "per_s": round(per_s)}})


if __name__ == "__main__":
    main()
