"""`make bench-attacks`: the largest silence that one healthy real-time stream sees while others attack its server.

The engine is scripted: a chunk of 0.2 s every 0.2 s. The attackers run in a process of their own, so that the stream's
client is not delayed by their work in Python. Also measured: how long the server's event loop computes without a break,
in CPU time. `tests/security` asserts both.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic

from httpx import AsyncClient
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from bench.report import BUILD, publish, table
from bench.scripted_server import Load, ScriptedServer, scripted_server
from mynah.client.client import Client
from mynah.client.errors import MynahError
from mynah.client.events import AudioChunk, Flushed

CLIENTS = 4
HEAD = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n"
MAX_FILES, HEADS = 512, 700
_TEXT = "This is a sentence of a long speech that goes on while others misbehave. "
_HANDSHAKE = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
_LOAD = Load(token_s=0.04, hop_tokens=5, watches_passes=True)
_AT_REST = "at rest"


@dataclass
class Target:
    """A server under attack: a client of its gRPC port, and both ports."""

    client: Client
    http: tuple[str, int]
    grpc: tuple[str, int]


Attack = Callable[[Target], Awaitable[None]]


async def heads(at: Target) -> None:
    """Half of a head on more connections than the server may have open files."""
    with unfinished(at.http, HEADS // CLIENTS):
        await asyncio.sleep(1.0)


@contextmanager
def unfinished(address: tuple[str, int], count: int, data: bytes = HEAD) -> Iterator[list[socket.socket]]:
    """Connections that each have sent half of a head."""
    sockets = []
    try:
        for _ in range(count):
            sockets.append(socket.create_connection(address, timeout=30))
            sockets[-1].sendall(data)
        yield sockets
    finally:
        for each in sockets:
            each.close()


async def giant_frames(at: Target) -> None:
    """Frames of JSON that would become half a million lists each."""
    frame = "[" + "[]," * 1_300_000 + "[]]"
    async with connect(_socket_of(at), proxy=None, compression=None) as socket:
        with suppress(ConnectionClosed):
            await socket.send(frame)
            await socket.recv()


async def allowed_frames(at: Target) -> None:
    """The worst that fits into the longest frame that is read."""
    for frame in ("[" + "[]," * 90_000 + "[]]", '{"text":{"content":"' + "\\n\\na" * 4_000 + '"}}'):
        async with connect(_socket_of(at), proxy=None, compression=None) as socket:
            with suppress(ConnectionClosed):
                await socket.send('{"open":{}}')
                for _ in range(10):
                    await socket.send(frame)
                while True:
                    await socket.recv()


async def tiny_chunks(at: Target) -> None:
    """A body of chunks of one byte, to a path that is unknown."""
    reader, writer = await asyncio.open_connection(*at.http)
    writer.write(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    with suppress(ConnectionError):
        writer.write(b"1\r\na\r\n" * 100_000)
        await writer.drain()
        await reader.read()
    writer.close()


async def pings(at: Target) -> None:
    """WebSocket pings whose pongs are not read."""
    reader, writer = await asyncio.open_connection(*at.http, limit=1024)
    writer.write(
        b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        + _HANDSHAKE
        + b"\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    with suppress(ConnectionError):
        writer.write((b"\x89\x80" + struct.pack("!I", 0)) * 100_000)
        await writer.drain()
    writer.close()


async def flushes(at: Target) -> None:
    async with at.client.stream() as stream:
        with suppress(MynahError):
            for _ in range(3000):
                await stream.flush()


async def cancels(at: Target) -> None:
    async with at.client.stream() as stream:
        for _ in range(200):
            await stream.send("This is never said to its end.")
            await stream.cancel()


async def lists(at: Target) -> None:
    for _ in range(100):
        await at.client.voices.list()


async def long_texts(at: Target) -> None:
    for _ in range(5):
        with suppress(MynahError):
            async for _ in at.client.synthesize("long " * 800_000):
                pass


async def foreign_hosts(at: Target) -> None:
    """Requests of a page whose name was pointed at the server."""
    who = b"Host: evil.example\r\nOrigin: http://evil.example\r\n"
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n" + _HANDSHAKE
    for path, more in ((b"/v1/voices", b""), (b"/v1/models", b""), (b"/v1/stream", upgrade)) * 30:
        reader, writer = await asyncio.open_connection(*at.http)
        writer.write(b"GET " + path + b" HTTP/1.1\r\n" + who + more + b"\r\n")
        if not (await reader.readline()).startswith(b"HTTP/1.1 403 "):
            raise RuntimeError("a foreign host was answered")
        writer.close()


async def unspeakable_texts(at: Target) -> None:
    """Texts of which a model would make noise for as long as it may."""
    arabic, sentences = "\u0645\u0631\u062d\u0628\u0627 " * 2000, "\u4e2d\u3002" * 1000
    for text in ("\U0001f600", "?!", "..." * 300, "\U0001f600 " * 2000, arabic, sentences):
        for _ in range(5):
            with suppress(MynahError):  # there is nothing to speak
                async for _ in at.client.synthesize(text):
                    pass


def call_head(path: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A call's header block, of literals."""
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *more,
    ]
    return b"".join(bytes((0, len(name))) + name + bytes((len(value),)) + value for name, value in fields)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2."""
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
CALL_CONNECTIONS, CALLS_OF_CONNECTION = 25, 100  # of each client: 10 000 calls


async def silent_calls(at: Target) -> None:
    """gRPC calls that never send their message."""
    await asyncio.gather(*(_calls(at, b"") for _ in range(CALL_CONNECTIONS)))


async def reset_calls(at: Target) -> None:
    """gRPC calls that are reset as soon as they are made."""
    await asyncio.gather(*(_calls(at, (8).to_bytes(4)) for _ in range(CALL_CONNECTIONS)))


async def _calls(at: Target, reset: bytes) -> None:
    reader, writer = await asyncio.open_connection(*at.grpc)
    head = call_head(b"/mynah.v1.Speech/GetServerInfo")
    writer.write(PREFACE)
    with suppress(ConnectionError, TimeoutError):
        for number in range(CALLS_OF_CONNECTION):
            writer.write(frame(1, 4, 2 * number + 1, head))
            if reset:
                writer.write(frame(3, 0, 2 * number + 1, reset))
        async with asyncio.timeout(2.0):
            while await reader.read(65_536):
                pass
    writer.close()


def _socket_of(at: Target) -> str:
    return "ws://{}:{}/v1/stream".format(*at.http)


INPUTS: list[Attack] = [
    giant_frames,
    allowed_frames,
    tiny_chunks,
    pings,
    flushes,
    cancels,
    lists,
    long_texts,
    foreign_hosts,
    unspeakable_texts,
]
CALLS: list[Attack] = [silent_calls, reset_calls]
ATTACKS: dict[str, Attack] = {each.__name__: each for each in (heads, *INPUTS, *CALLS)}


@dataclass
class Healthy:
    """A stream that speaks without end, and the longest wait for a chunk since `reset`."""

    gap_s: float = 0.0
    chunks: int = 0
    _last_s: float = field(default_factory=monotonic)

    def reset(self) -> None:
        self.gap_s, self.chunks, self._last_s = 0.0, 0, monotonic()

    def largest_s(self) -> float:
        """The largest gap, the one that goes on included."""
        return max(self.gap_s, monotonic() - self._last_s)

    async def run(self, client: Client, begun: asyncio.Event) -> None:
        async with client.stream() as stream:
            for _ in range(2):  # always a sentence ahead
                await stream.send(_TEXT)
                await stream.flush()
            async for event in stream.events():
                if isinstance(event, Flushed):
                    await stream.send(_TEXT)
                    await stream.flush()
                elif isinstance(event, AudioChunk):
                    self.arrived()
                    begun.set()

    def arrived(self) -> None:
        """A chunk has arrived."""
        now_s = monotonic()
        self.gap_s, self._last_s = max(self.gap_s, now_s - self._last_s), now_s
        self.chunks += 1


@dataclass(frozen=True)
class Cost:
    """What an attack costs: the stream's largest gap, and the event loop's longest CPU time without a break."""

    gap_s: float
    longest_s: float


async def measure(names: list[str], seconds: float) -> dict[str, Cost]:
    """Returns the cost at rest and of each attack, which is repeated for this time."""
    flags = ("--http-listen", "127.0.0.1:0", "--max-streams", "64")
    async with (
        scripted_server(_LOAD, BUILD / "attacks.log", *flags, max_files=MAX_FILES) as server,
        Client(server.address) as client,
    ):
        healthy, begun = Healthy(), asyncio.Event()
        speaking = asyncio.create_task(healthy.run(client, begun))
        await begun.wait()
        healthy.reset()
        await _longest_s(server)  # resets it
        await asyncio.sleep(seconds)
        costs = {_AT_REST: Cost(healthy.largest_s(), await _longest_s(server))}
        for name in names:
            async with _attacker(name, server) as go:
                healthy.reset()
                await _longest_s(server)
                await go(seconds)
                gap_s = healthy.largest_s()
                costs[name] = Cost(gap_s, await _longest_s(server))
            if speaking.done():
                await speaking
                raise RuntimeError(f"the healthy stream ended under {name}")
        speaking.cancel()
    return costs


async def _longest_s(server: ScriptedServer) -> float:
    """The event loop's longest CPU time without a break since the last call."""
    async with AsyncClient() as client:
        page = (await client.get(f"http://{server.admin}/metrics", timeout=60)).text
    return next(float(line.split()[1]) for line in page.splitlines() if line.startswith("bench_longest_pass_cpu_s "))


@asynccontextmanager
async def _attacker(name: str, server: ScriptedServer) -> AsyncIterator[Callable[[float], Awaitable[None]]]:
    """A process that attacks for some seconds when it is called. Raises RuntimeError if it fails."""
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "bench.attacks", "--attack", name, "--at", server.address, server.http)
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    async def go(seconds: float) -> None:
        stdin.write(f"{seconds}\n".encode())
        if await stdout.readline() != b"done\n":
            raise RuntimeError(f"the attacker of {name} failed")

    try:
        if await stdout.readline() != b"ready\n":
            raise RuntimeError(f"the attacker of {name} did not start")
        yield go
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def pair(address: str) -> tuple[str, int]:
    """HOST:PORT as a pair."""
    host, _, port = address.rpartition(":")
    return host, int(port)


async def attack(name: str, address: str, http: str) -> None:
    """Attacks with several clients at once, again and again, for the seconds that standard input says."""
    async with Client(address) as client:
        at = Target(client, pair(http), pair(address))
        print("ready", flush=True)
        seconds = float(await asyncio.to_thread(sys.stdin.readline))
        await asyncio.gather(*(_repeat(name, at, monotonic() + seconds) for _ in range(CLIENTS)))
        print("done", flush=True)


async def _repeat(name: str, at: Target, until_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(until_s - monotonic()):
            while True:
                with suppress(ConnectionError, ConnectionClosed):
                    await ATTACKS[name](at)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("attacks", nargs="*", choices=[*ATTACKS, []], help="default: all")
    parser.add_argument("--seconds", type=float, default=5.0, help="time of each attack (default %(default)g)")
    parser.add_argument("--attack", help=argparse.SUPPRESS)
    parser.add_argument("--at", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.attack:
        asyncio.run(attack(args.attack, *args.at))
        return
    costs = asyncio.run(measure(args.attacks or [*ATTACKS], args.seconds))
    rows = [(name, round(cost.longest_s, 3), round(cost.gap_s, 2)) for name, cost in costs.items()]
    figures = {
        "seconds": args.seconds,
        "longest_s": {name: longest_s for name, longest_s, _ in rows},
        "gap_s": {name: gap_s for name, _, gap_s in rows},
    }
    publish("attacks", table(["attack", "longest, CPU s", "largest gap, s"], rows), figures)


if __name__ == "__main__":
    main()
