"""`make bench-http`: what the HTTP surface itself costs, on a scripted engine: overhead of a chunk at 64 real-time
streams over the WebSocket and over /v1/audio/speech, refusals, and from a client's leaving to its slot being free.
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
_ASKED = {"model": "tts-1", "voice": "default", "input": _SENTENCE * 20, "response_format": "pcm"}


async def overhead(surface: Surface, streams: int, seconds: float) -> list[float]:
    """Milliseconds from the engine's handing over a chunk to its complete arrival at the client."""
    delays: list[float] = []
    rng = random.Random(5)

    async def listen() -> None:
        await asyncio.sleep(rng.random())  # streams are not in step
        text = _SENTENCE * max(1, round(seconds / (len(_SENTENCE) * LOAD.token_s)))
        async for chunk in chunks(surface.speak(text)):
            delays.append((monotonic_ns() - made_at_ns(chunk)) / 1e6)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(streams):
            tasks.create_task(listen())
    return delays


async def chunks(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The engine's chunks again, of bytes as the connection cut them."""
    held = b""
    async for piece in pieces:
        held += piece
        while len(held) >= _CHUNK_BYTES:
            yield held[:_CHUNK_BYTES]
            held = held[_CHUNK_BYTES:]


async def full_house(address: str, streams: int, times: int) -> dict[str, list[float]]:
    """With every slot taken by speech: milliseconds of refusals, and of slots changing hands."""
    found: dict[str, list[float]] = {"refusal": [], "slot": []}
    async with httpx.AsyncClient(base_url=f"http://{address}") as client:
        open_streams = [await speaking(address) for _ in range(streams)]
        for turn in range(times):
            began_s = perf_counter()
            answer = await client.post("/v1/audio/speech", json=_ASKED)
            found["refusal"].append((perf_counter() - began_s) * 1e3)
            if (answer.status_code, answer.json()["error"]["code"]) != (429, "STREAMS_EXHAUSTED"):
                raise RuntimeError(f"a full server answered {answer.status_code}")
            began_s = perf_counter()
            open_streams[turn % streams].transport.abort()
            open_streams[turn % streams] = await speaking(address)
            found["slot"].append((perf_counter() - began_s) * 1e3)
        for stream in open_streams:
            stream.transport.abort()
    return found


async def speaking(address: str) -> ClientConnection:
    """A stream with a slot, that has something to speak. Asks at once, again and again, until there is room."""
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
        answers = await overhead(by_http, streams, seconds)
        house = await full_house(server.http, streams, times)
    return [
        Measured(f"overhead per chunk, {streams} WebSockets", sockets, 1.5, 25.0),
        Measured(f"overhead per chunk, {streams} HTTP answers", answers, 1.5, 25.0),
        Measured("refusal, HTTP", house["refusal"], None, 10.0),
        Measured("client gone to slot taken anew, WebSocket", house["slot"], None, 50.0),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.http", description=__doc__, allow_abbrev=False)
    parser.add_argument("--streams", type=int, default=STREAMS)
    parser.add_argument("--seconds", type=float, default=15.0, help="of speech on each stream (default %(default)s)")
    parser.add_argument("--times", type=int, default=300, help="refusals and slots (default %(default)s)")
    arguments = parser.parse_args()
    try:
        measured = asyncio.run(bench(arguments.streams, arguments.seconds, arguments.times))
    except* Refusal as refusals:
        raise SystemExit(f"a stream was refused: {refusals.exceptions[0]}") from None
    header = ["", "n", "p50 ms", "p99 ms", "max ms", "goal p50 / p99", "met"]
    publish("http", table(header, [each.row() for each in measured]), {each.name: each.json() for each in measured})


if __name__ == "__main__":
    main()
