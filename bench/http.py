"""`make bench-http`: the overhead of HTTP on a scripted engine.

Measures the delay of a chunk at 64 real-time streams over the WebSocket and over /v1/audio/speech, rejections, and the
time from a client's disconnect to its slot's reuse.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from time import monotonic_ns, perf_counter

import httpx
from websockets.asyncio.client import ClientConnection, connect

from bench.report import BUILD, publish, table
from bench.scripted_server import Load, ScriptedServer, made_at_ns, scripted_server
from bench.service import Measured
from service.load.surfaces import Http, Refusal, Surface, WebSocket

STREAMS = 64
LOAD = Load()
_CHUNK_BYTES = 2 * 960 * LOAD.hop_tokens
_SENTENCE = (
    "This sentence is as long as many others are, and it is said over and over again. "  # one token per character
)
assert len(_SENTENCE.strip()) % LOAD.hop_tokens == 0, "so that every chunk is complete"
_REQUEST = {"model": "tts-1", "voice": "default", "input": _SENTENCE * 20, "response_format": "pcm"}


async def overhead(surface: Surface, streams: int, seconds: float) -> list[float]:
    """Milliseconds from a chunk's leaving the engine to its last byte's arrival at the client, for each chunk."""
    delays: list[float] = []
    rng = random.Random(5)

    async def listen() -> None:
        await asyncio.sleep(rng.random())  # desynchronises the streams
        text = _SENTENCE * max(1, round(seconds / (len(_SENTENCE) * LOAD.token_s)))
        async for chunk in chunks(surface.speak(text)):
            delays.append((monotonic_ns() - made_at_ns(chunk)) / 1e6)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(streams):
            tasks.create_task(listen())
    return delays


async def chunks(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Reassembles the engine's chunks from the pieces of a connection."""
    held = b""
    async for piece in pieces:
        held += piece
        while len(held) >= _CHUNK_BYTES:
            yield held[:_CHUNK_BYTES]
            held = held[_CHUNK_BYTES:]


async def full_server(address: str, streams: int, times: int) -> dict[str, list[float]]:
    """With all slots in use: milliseconds of rejections, and from a disconnect to the slot's reuse."""
    times_ms: dict[str, list[float]] = {"rejection": [], "slot": []}
    async with httpx.AsyncClient(base_url=f"http://{address}") as client:
        open_streams = [await speaking(address) for _ in range(streams)]
        for turn in range(times):
            began_s = perf_counter()
            response = await client.post("/v1/audio/speech", json=_REQUEST)
            times_ms["rejection"].append((perf_counter() - began_s) * 1e3)
            if (response.status_code, response.json()["error"]["code"]) != (429, "STREAMS_EXHAUSTED"):
                raise RuntimeError(f"a full server responded with {response.status_code}")
            began_s = perf_counter()
            open_streams[turn % streams].transport.abort()
            open_streams[turn % streams] = await speaking(address)
            times_ms["slot"].append((perf_counter() - began_s) * 1e3)
        for stream in open_streams:
            stream.transport.abort()
    return times_ms


async def speaking(address: str) -> ClientConnection:
    """Opens a stream with text to speak; retries without delay until it is admitted."""
    while True:
        stream = await connect(f"ws://{address}/v1/stream", proxy=None, compression=None, max_queue=None)
        await stream.send(json.dumps({"open": {}}))
        if "opened" in json.loads(await stream.recv()):
            await stream.send(json.dumps({"text": {"content": _SENTENCE * 20}}))
            return stream
        stream.transport.abort()


async def bench(streams: int, seconds: float, times: int) -> list[Measured]:
    flags = ("--max-streams", str(streams), "--http-listen", "127.0.0.1:0", "--log-level", "warning")
    async with AsyncExitStack() as held:
        server: ScriptedServer = await held.enter_async_context(scripted_server(LOAD, BUILD / "http.log", *flags))
        by_websocket = await held.enter_async_context(WebSocket(server.http))
        by_http = await held.enter_async_context(Http(server.http))
        sockets = await overhead(by_websocket, streams, seconds)
        responses = await overhead(by_http, streams, seconds)
        full = await full_server(server.http, streams, times)
    return [
        Measured(f"overhead per chunk, {streams} WebSockets", sockets, 1.5, 25.0),
        Measured(f"overhead per chunk, {streams} HTTP responses", responses, 1.5, 25.0),
        Measured("rejection, HTTP", full["rejection"], None, 10.0),
        Measured("disconnect to slot in use again, WebSocket", full["slot"], None, 50.0),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.http", description=__doc__, allow_abbrev=False)
    parser.add_argument("--streams", type=int, default=STREAMS)
    parser.add_argument("--seconds", type=float, default=15.0, help="of speech on each stream (default %(default)s)")
    parser.add_argument("--times", type=int, default=300, help="rejections and disconnects (default %(default)s)")
    arguments = parser.parse_args()
    try:
        measured = asyncio.run(bench(arguments.streams, arguments.seconds, arguments.times))
    except* Refusal as refusals:
        raise SystemExit(f"a stream was refused: {refusals.exceptions[0]}") from None
    header = ["", "n", "p50 ms", "p99 ms", "max ms", "goal p50 / p99", "met"]
    publish("http", table(header, [each.row() for each in measured]), {each.name: each.json() for each in measured})


if __name__ == "__main__":
    main()
