"""`make bench-http`: the cost of the HTTP server, with a scripted engine.

Measures the overhead per chunk at 64 real-time streams over WebSockets and /v1/audio/speech, refusals, and the time
from a client's disconnection until its slot is free.
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

from bench.load.surfaces import Http, Refusal, Surface, WebSocket
from bench.report import BUILD, publish, table
from bench.scripted_server import Load, ScriptedServer, made_at_ns, scripted_server
from bench.service import Measured

STREAMS = 64
LOAD = Load()
_CHUNK_BYTES = 2 * 960 * LOAD.hop_tokens
_SENTENCE = "This sentence is as long as many others are, and it is said over and over again. "  # one token per char
assert len(_SENTENCE.strip()) % LOAD.hop_tokens == 0, "so that every chunk is a whole one"
_BODY = {"model": "tts-1", "voice": "default", "input": _SENTENCE * 20, "response_format": "pcm"}


async def overhead(surface: Surface, streams: int, seconds: float) -> list[float]:
    """Returns the milliseconds from the engine's yield of a chunk to its complete arrival at the client."""
    delays: list[float] = []
    rng = random.Random(5)

    async def listen() -> None:
        await asyncio.sleep(rng.random())  # so that streams are not synchronous
        text = _SENTENCE * max(1, round(seconds / (len(_SENTENCE) * LOAD.token_s)))
        async for chunk in chunks(surface.speak(text)):
            delays.append((monotonic_ns() - made_at_ns(chunk)) / 1e6)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(streams):
            tasks.create_task(listen())
    return delays


async def chunks(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Reassembles the engine's chunks from the connection's pieces."""
    buffer = b""
    async for piece in pieces:
        buffer += piece
        while len(buffer) >= _CHUNK_BYTES:
            yield buffer[:_CHUNK_BYTES]
            buffer = buffer[_CHUNK_BYTES:]


async def at_capacity(address: str, streams: int, times: int) -> dict[str, list[float]]:
    """Returns the milliseconds of refusals and of freeing and taking a slot, with all slots in use."""
    times_ms: dict[str, list[float]] = {"refusal": [], "slot": []}
    async with httpx.AsyncClient(base_url=f"http://{address}") as client:
        open_streams = [await speaking(address) for _ in range(streams)]
        for turn in range(times):
            began_s = perf_counter()
            answer = await client.post("/v1/audio/speech", json=_BODY)
            times_ms["refusal"].append((perf_counter() - began_s) * 1e3)
            if (answer.status_code, answer.json()["error"]["code"]) != (429, "STREAMS_EXHAUSTED"):
                raise RuntimeError(f"A server at its capacity answered {answer.status_code}.")
            began_s = perf_counter()
            open_streams[turn % streams].transport.abort()
            open_streams[turn % streams] = await speaking(address)
            times_ms["slot"].append((perf_counter() - began_s) * 1e3)
        for stream in open_streams:
            stream.transport.abort()
    return times_ms


async def speaking(address: str) -> ClientConnection:
    """Open a stream that speaks; retries without a pause until a slot is free."""
    while True:
        stream = await connect(f"ws://{address}/v1/stream", proxy=None, compression=None, max_queue=None)
        await stream.send(json.dumps({"open": {}}))
        if "opened" in json.loads(await stream.recv()):
            await stream.send(json.dumps({"text": {"content": _SENTENCE * 20}}))
            return stream
        stream.transport.abort()


async def bench(streams: int, seconds: float, times: int) -> list[Measured]:
    flags = ("--max-streams", str(streams), "--http-listen", "127.0.0.1:0", "--log-level", "warning")
    async with AsyncExitStack() as stack:
        server: ScriptedServer = await stack.enter_async_context(scripted_server(LOAD, BUILD / "http.log", *flags))
        by_websocket = await stack.enter_async_context(WebSocket(server.http))
        by_http = await stack.enter_async_context(Http(server.http))
        sockets = await overhead(by_websocket, streams, seconds)
        answers = await overhead(by_http, streams, seconds)
        full = await at_capacity(server.http, streams, times)
    return [
        Measured(f"overhead per chunk, {streams} WebSockets", sockets, 1.5, 25.0),
        Measured(f"overhead per chunk, {streams} HTTP answers", answers, 1.5, 25.0),
        Measured("refusal, HTTP", full["refusal"], None, 10.0),
        Measured("client gone to slot taken anew, WebSocket", full["slot"], None, 50.0),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.http", description=__doc__, allow_abbrev=False)
    parser.add_argument("--streams", type=int, default=STREAMS)
    parser.add_argument(
        "--seconds", type=float, default=15.0, help="seconds of speech per stream (default %(default)s)"
    )
    parser.add_argument("--times", type=int, default=300, help="number of refusals and slots (default %(default)s)")
    arguments = parser.parse_args()
    try:
        measured = asyncio.run(bench(arguments.streams, arguments.seconds, arguments.times))
    except* Refusal as refusals:
        raise SystemExit(f"The server refused a stream: {refusals.exceptions[0]}.") from None
    header = ["", "n", "p50 ms", "p99 ms", "max ms", "goal p50 / p99", "met"]
    publish("http", table(header, [each.row() for each in measured]), {each.name: each.json() for each in measured})


if __name__ == "__main__":
    main()
