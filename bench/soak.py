"""`make soak`: misbehaving clients for minutes; afterwards the server must hold none of their resources.

Fails if memory grows, a gauge does not return to zero, a task or file stays open, or a stream gets no response. The
engine is scripted: ten times as fast as speech, with occasional failures. The voice store lies on a disk that is soon
full, holds files that are not voices, and hangs for some of them. At the end a decode hangs: every stream must end with
an error, and the process with SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import sys
import tempfile
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import grpc.aio
from prometheus_client.parser import text_string_to_metric_families as parse

from bench.malformed import Malformed, Request, answer, supply
from bench.report import BUILD, publish, table
from bench.scripted_server import Load, ScriptedServer, scripted_server
from bench.soak_faults import DAMAGED, HUNG, disk, hung_decode
from mynah.client.errors import MynahError
from mynah.client.settings import Timeouts
from mynah.client.transport import BidiStream, open_channel
from mynah.client.voices import Voices
from mynah.v1 import speech_pb2, speech_pb2_grpc
from service.load.arrivals import TEXTS

CLIENTS = 32
_MAX_STREAMS = 24  # fewer than clients, so that some are rejected
_MAX_TEXT_CHARS = 2000
_STALL_S = 1.5
_WARM_UP_S = 10.0
_REST_S = 15.0  # time limit for releasing everything afterwards
_ENDS = {"", "STREAMS_EXHAUSTED", "ENGINE_FAILURE", "READER_STALLED"}  # allowed ends of a valid stream
_MAX_LOG_BYTES_PER_MINUTE = 1_000_000
_HANDSHAKE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
_UPLOAD_ENDS = {"UPLOADS_EXHAUSTED", "STORAGE_FULL", "STORE_TIMEOUT"}
_MAX_FILLING = 40  # more voices than fit on the disk
_HUNG_READ_S, _STORE_TIMEOUT_S = 2.0, 1.0
_REFERENCE = b"RIFF" + bytes(5000)  # enough for the scripted engine
_SETTINGS = speech_pb2.SpeechSettings(sampling=speech_pb2.Sampling(seed=1))
HELD = ("mynah_streams_active", "mynah_t3_kv_cache_ratio", "bench_engine_streams", "bench_engine_segments")


@dataclass(frozen=True)
class Sample:
    """The resources that the server's process holds at a time."""

    at_s: float
    rss_bytes: float
    files: dict[str, int]  # count by kind
    tasks: float
    held: tuple[float, ...]  # in the order of HELD


class Clients:
    """Clients that each run one random action after another, and the counts of how these end."""

    def __init__(self, channel: grpc.aio.Channel, http: str, seed: int, answer_s: float) -> None:
        self.ends: Counter[str] = Counter()  # "action: end"
        self.wrong: Counter[str] = Counter()
        self._answer_s = answer_s  # time limit of an action
        self._channel = channel
        host, _, port = http.rpartition(":")
        self._http = host, int(port)
        self._stub = speech_pb2_grpc.SpeechStub(channel)  # type: ignore[no-untyped-call]
        self._random = random.Random(seed)
        self._malformed = supply(seed, _MAX_TEXT_CHARS)
        self._voices = Voices(channel, Timeouts())
        self._actions: dict[str, tuple[int, Callable[[], Awaitable[None]]]] = {
            "listen": (25, self._listen),
            "cancel": (25, self._cancel),
            "leave": (15, self._leave),
            "read slowly": (10, self._read_slowly),
            "stop reading": (5, self._stop_reading),
            "nonsense": (20, self._send_malformed),
            "slow head": (5, self._hold_head),
            "giant frame": (3, self._send_giant_frame),
            "rebinding": (5, self._rebind),
            "injection": (5, self._inject),
            "damaged voice": (3, partial(self._use_voice, DAMAGED, {"VOICE_DAMAGED", "STORE_TIMEOUT"})),
            "hung voice": (2, partial(self._use_voice, HUNG, {"STORE_TIMEOUT"})),
            "upload": (5, self._upload),
            "full disk": (1, self._fill_disk),
        }
        self._not_begun = deque(self._actions)  # so that a short run has every action

    async def run(self, until_s: float) -> None:
        names = list(self._actions)
        weights = [weight for weight, _ in self._actions.values()]
        while asyncio.get_running_loop().time() < until_s:
            name = self._not_begun.popleft() if self._not_begun else self._random.choices(names, weights)[0]
            end = await self._end_of(self._actions[name][1])
            self.ends[f"{name}: {end or 'well'}"] += 1
            if end not in _ENDS and not (name == "full disk" and end in _UPLOAD_ENDS):
                self.wrong[f"{name}: {end}"] += 1
            if end == "STREAMS_EXHAUSTED":  # retries a little later, as the error asks for
                await asyncio.sleep(self._random.uniform(0.0, 0.4))

    async def _end_of(self, action: Callable[[], Awaitable[None]]) -> str:
        try:
            async with asyncio.timeout(self._answer_s):
                await action()
        except MynahError as error:
            return error.reason
        except TimeoutError:
            return "UNANSWERED"
        return ""

    def missing(self, *, small_disk: bool) -> list[str]:
        """What the run should have met and did not. Without a small disk none is full."""
        begun = {name.partition(":")[0] for name in self.ends}
        missing = [f"nothing tried {name}" for name in self._actions if name not in begun]
        if small_disk and not self.ends["full disk: STORAGE_FULL"]:
            missing.append("the disk was never full")
        return missing

    @asynccontextmanager
    async def _stream(self) -> AsyncIterator[BidiStream]:
        call = BidiStream(self._stub.StreamSpeech())
        try:
            await call.write(Request(open=speech_pb2.OpenStream(settings=_SETTINGS)))
            await call.read()
            text = " ".join(self._random.choices(TEXTS, k=self._random.randint(1, 4)))
            await self._send(call, text, flush_id=1)
            yield call
        finally:
            await call.close()

    async def _listen(self) -> None:
        async with self._stream() as call:
            await call.done_writing()
            await _read_to_end(call)

    async def _cancel(self) -> None:
        """Cancels in the middle of speech, once or twice, and sends new text each time."""
        async with self._stream() as call:
            for turn in range(self._random.randint(1, 2)):
                await self._read_some(call)
                await call.write(Request(cancel=speech_pb2.Cancel()))
                while (message := await call.read()) is not None and not message.HasField("cancelled"):
                    pass
                await self._send(call, "Something else.", flush_id=2 + turn)
            await call.done_writing()
            await _read_to_end(call)

    async def _leave(self) -> None:
        async with self._stream() as call:
            await self._read_some(call)

    async def _read_slowly(self) -> None:
        async with self._stream() as call:
            await call.done_writing()
            while await call.read() is not None:  # noqa: ASYNC110 - a slow reader, not a poll
                await asyncio.sleep(self._random.uniform(0.0, 0.2))

    async def _stop_reading(self) -> None:
        """Sends much text and reads nothing for longer than the stall timeout."""
        async with self._stream() as call:
            await self._send(call, " ".join(TEXTS), flush_id=2)
            await call.done_writing()
            await asyncio.sleep(_STALL_S * 3)
            await _read_to_end(call)

    async def _send_malformed(self) -> None:
        request: Malformed = next(self._malformed)
        if problem := await answer(self._channel, request):
            self.wrong[problem] += 1

    async def _hold_head(self) -> None:
        """Half of an HTTP head, held for a while."""
        await self._request(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n", wait_s=self._random.uniform(0.0, 3.0))

    async def _send_giant_frame(self) -> None:
        """A WebSocket frame of half a million JSON lists."""
        frame = b"[" + b"[]," * 500_000 + b"[]]"
        head = bytes((0x81, 0x80 | 127)) + len(frame).to_bytes(8) + bytes(4)
        await self._request(_HANDSHAKE + head + frame, wait_s=5.0)

    async def _rebind(self) -> None:
        """A page whose name points here; the answer must refuse it."""
        request = b"GET /v1/voices HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
        if not (answer := await self._request(request, wait_s=20.0)).startswith(b"HTTP/1.1 403 "):
            self.wrong[f"rebinding: {answer[:40]!r}"] += 1

    async def _inject(self) -> None:
        """A field whose name would forge a log line."""
        body = b'{"x\\n2026-01-01 00:00:00,000 INFO forged\\u001b[2J": 1}'
        head = b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        head += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        await self._request(head + body, wait_s=20.0)

    async def _request(self, sent: bytes, wait_s: float) -> bytes:
        """Sends bytes to the HTTP port. Returns what it answered within the time."""
        answer = bytearray()
        with suppress(OSError, TimeoutError):
            reader, writer = await asyncio.open_connection(*self._http)
            try:
                async with asyncio.timeout(wait_s):
                    writer.write(sent)
                    while part := await reader.read(4096):
                        answer += part
            finally:
                writer.close()
        return bytes(answer)

    async def _use_voice(self, voice: str, expected: set[str]) -> None:
        """Asks for a voice that cannot be used."""
        try:
            await self._voices.get(voice)
        except MynahError as error:
            if error.reason not in expected:
                raise
        else:
            self.wrong[f"the voice {voice} was given out"] += 1

    async def _upload(self) -> None:
        """Stores a voice, and deletes about half of them again."""
        try:
            voice = await self._voices.create("Anna", _REFERENCE, consent=True)
            if self._random.random() < 0.5:
                await self._voices.delete(voice.voice_id)
        except MynahError as error:
            if error.reason not in _UPLOAD_ENDS:
                raise

    async def _fill_disk(self) -> None:
        """Stores voices until the disk is full, then deletes them. Raises what the last one ended with."""
        stored = []
        try:
            while len(stored) < _MAX_FILLING:
                stored.append((await self._voices.create("Fill", _REFERENCE, consent=True)).voice_id)
        finally:
            for voice_id in stored:
                with suppress(MynahError):
                    await self._voices.delete(voice_id)

    async def _send(self, call: BidiStream, text: str, flush_id: int) -> None:
        await call.write(Request(text=speech_pb2.TextFragment(content=text)))
        await call.write(Request(flush=speech_pb2.Flush(flush_id=flush_id)))

    async def _read_some(self, call: BidiStream) -> None:
        """Reads a random number of events, at most to the end of the text."""
        for _ in range(self._random.randint(0, 6)):
            message = await call.read()
            if message is None or message.HasField("flushed"):
                return


async def _read_to_end(call: BidiStream) -> None:
    while await call.read() is not None:
        pass


async def take_sample(server: ScriptedServer, began_s: float) -> Sample:
    """Scrapes what the server holds now."""
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
    """Returns the samples under load, samples of the idle server before and after, and the clients."""
    flags = ["--max-streams", str(_MAX_STREAMS), "--max-pending-text-chars", str(_MAX_TEXT_CHARS)]
    flags += ["--stall-timeout-s", str(_STALL_S), "--store-timeout-s", str(_STORE_TIMEOUT_S), "--log-level", "info"]
    flags += ["--http-listen", "127.0.0.1:0"]
    load = Load(token_s=0.004, fault_share=0.05, seed=seed, hung_read_s=_HUNG_READ_S)
    with tempfile.TemporaryDirectory() as folder:
        flags += ["--voices-dir", folder]
        return await _soak(load, flags, disk(Path(folder)), seconds, clients, seed, answer_s)


async def _soak(
    load: Load, flags: list[str], within: Sequence[str], seconds: float, clients: int, seed: int, answer_s: float
) -> tuple[list[Sample], Sample, Sample, Clients]:
    clock = asyncio.get_running_loop().time
    async with scripted_server(load, BUILD / "soak.log", *flags, within=within) as server:
        async with _clients(server, seed, answer_s) as first:  # fills caches and pools that stay
            await asyncio.gather(*(first.run(clock() + _WARM_UP_S) for _ in range(clients)))
        before = await _idle_sample(server, None)
        began_s = clock()
        samples: list[Sample] = []
        async with _clients(server, seed + 1, answer_s) as all_clients:
            running = asyncio.gather(*(all_clients.run(began_s + seconds) for _ in range(clients)))
            while clock() < began_s + seconds and not running.done():
                samples.append(await take_sample(server, began_s))
                await asyncio.wait([running], timeout=seconds / 200)
            await running
        after = await _idle_sample(server, before)
        all_clients.wrong.update(all_clients.missing(small_disk=bool(within)))
        minutes = max(1.0, (clock() - began_s + _WARM_UP_S) / 60)
        if (log_bytes := server.log.stat().st_size) > _MAX_LOG_BYTES_PER_MINUTE * minutes:
            all_clients.wrong[f"the log grew by {log_bytes / minutes:.0f} bytes a minute"] += 1
        if forged := [line for line in server.log.read_text("ascii").splitlines() if not line.isprintable()]:
            all_clients.wrong[f"forged log line {forged[0]!r}"] += 1
    return samples, before, after, all_clients


@asynccontextmanager
async def _clients(server: ScriptedServer, seed: int, answer_s: float) -> AsyncIterator[Clients]:
    channel = open_channel(server.address, None)
    try:
        yield Clients(channel, server.http, seed, answer_s)
    finally:
        await channel.close()


async def _idle_sample(server: ScriptedServer, before: Sample | None) -> Sample:
    """Returns the first sample in which nothing is held beyond `before`, or the last one at the time limit."""
    clock = asyncio.get_running_loop().time
    began_s = clock()
    while True:
        sample = await take_sample(server, began_s)
        idle = not any(sample.held) and (before is None or not left_over(before, sample))
        if idle or clock() - began_s > _REST_S:
            return sample
        await asyncio.sleep(0.25)


def left_over(before: Sample, after: Sample) -> list[str]:
    """Names what an idle server holds that it did not hold before."""
    leaks = [f"{name} is {value:g}" for name, value in zip(HELD, after.held, strict=True) if value]
    if (more := after.tasks - before.tasks) > 0:
        leaks.append(f"{more:g} tasks are left")
    if more_files := Counter(after.files) - Counter(before.files):
        leaks.append(f"files are left open: {dict(more_files)}")
    return leaks


def open_files(pid: int) -> dict[str, int]:
    """Counts a process' open files by kind: "socket", "anon_inode:[eventfd]", a path."""
    kinds: Counter[str] = Counter()
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed since
            kinds[re.sub(r":\[\d+\]$", "", os.readlink(handle))] += 1
    return dict(kinds)


def growth(samples: Sequence[Sample]) -> float:
    """The relative growth of memory over the second half, by the Theil-Sen estimator (median of slopes)."""
    half = samples[len(samples) // 2 :]
    thinned = half[:: max(1, len(half) // 60)]
    slopes = [
        (b.rss_bytes - a.rss_bytes) / (b.at_s - a.at_s)
        for i, a in enumerate(thinned)
        for b in thinned[i + 1 :]
        if b.at_s > a.at_s
    ]
    return median(slopes) * (half[-1].at_s - half[0].at_s) / mean(sample.rss_bytes for sample in half)


def failures(
    samples: Sequence[Sample], before: Sample, after: Sample, wrong: Counter[str], max_growth: float = 0.02
) -> list[str]:
    """Returns the reasons why the soak failed; empty if it passed."""
    reasons = left_over(before, after)
    if (grown := growth(samples)) > max_growth:
        reasons.append(f"memory grew by {grown:.1%} over the second half; allowed {max_growth:.0%}")
    return reasons + [f"{count} x {end}" for end, count in wrong.most_common()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--seed", type=int, default=1)
    slow = "time limit of a stream in seconds; raise it on a busy machine (default %(default)g)"
    warm = "allowed growth of memory over the second half (default %(default)g); raise it for runs of about a minute"
    parser.add_argument("--most-growth", type=float, default=0.02, help=warm)
    parser.add_argument("--answer-s", type=float, default=30.0, help=slow)
    args = parser.parse_args()
    samples, before, after, clients = asyncio.run(soak(args.seconds, args.clients, args.seed, args.answer_s))
    reasons = failures(samples, before, after, clients.wrong, args.most_growth)
    reasons += asyncio.run(hung_decode(_MAX_STREAMS, args.answer_s))
    text = table(["action: end", "times"], sorted(clients.ends.items()))
    rss_mb = [round(sample.rss_bytes / 1e6, 1) for sample in samples]
    text += f"\n\nmemory {rss_mb[0]} MB at the start, {rss_mb[len(rss_mb) // 2]} half-way, {rss_mb[-1]} at the end; "
    text += f"growth over the second half {growth(samples):+.2%}\n"
    text += "\n".join(f"FAILED: {why}" for why in reasons) or "passed"
    result = {
        "seconds": args.seconds,
        "growth": round(growth(samples), 4),
        "rss_mb": rss_mb[:: len(rss_mb) // 20 or 1],
    }
    ends = dict(sorted(clients.ends.items()))
    publish("soak", text, {**result, "ends": ends, "before": asdict(before), "after": asdict(after), "failed": reasons})
    sys.exit(1 if reasons else 0)


if __name__ == "__main__":
    main()
