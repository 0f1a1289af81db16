"""The servers behind a client: which there are, how busy each is, and which one a new stream goes to.

Knows addresses, channels and load; knows nothing of what is said on a stream.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from mynah.client.errors import MynahError, Unavailable
from mynah.client.transport import rpc_errors
from mynah.v1 import speech_pb2, speech_pb2_grpc

_DNS = "dns:"
_RESOLVE_EVERY_S = 10.0
_LOOK_EVERY_S = 2.0
_LOOK_TIMEOUT_S = 1.0
_REST_S = 1.0  # after a failure that names no time of its own


@dataclass
class Server:
    """One address with its connection. `places` is how many streams it takes, 0 while unknown."""

    address: str
    channel: Any  # grpc.aio.Channel
    calls: Any  # the channel as stubs want it
    speech: Any = field(init=False)  # SpeechStub
    own_streams: int = 0
    left: asyncio.Event = field(init=False, default_factory=asyncio.Event)  # set while own_streams is 0
    open_streams: int = 0  # everybody's, when it was last looked at
    own_streams_then: int = 0
    places: int = 0
    rests_until_s: float = 0.0

    def __post_init__(self) -> None:
        self.speech = speech_pb2_grpc.SpeechStub(self.calls)  # type: ignore[no-untyped-call]
        self.left.set()

    @property
    def load(self) -> float:
        """Streams per place: what the server told, and what this client has changed since."""
        streams = max(0, self.open_streams + self.own_streams - self.own_streams_then)
        return streams / self.places if self.places else float(streams)

    def rests(self, now_s: float) -> bool:
        return now_s < self.rests_until_s

    def enter(self) -> None:
        """A stream of this client's goes there."""
        self.own_streams += 1
        self.left.clear()

    def leave(self) -> None:
        self.own_streams -= 1
        if not self.own_streams:
            self.left.set()

    def failed(self, error: MynahError) -> None:
        """A call failed: others go first until it may have recovered."""
        self.rests_until_s = time.monotonic() + (error.retry_after_s or _REST_S)


def choose(servers: Sequence[Server], now_s: float, draw: random.Random, avoid: Collection[str] = ()) -> Server:
    """The less loaded of two servers drawn at random: many clients that all took the emptiest would overrun it.

    Servers that rest or are to be avoided come last, in that order.
    """
    preferred = [s for s in servers if not s.rests(now_s) and s.address not in avoid]
    awake = [s for s in servers if not s.rests(now_s)]
    candidates = preferred or awake or servers
    drawn = draw.sample(candidates, min(2, len(candidates)))
    return min(drawn, key=lambda server: server.load)


class Servers:
    """A fixed list of addresses, or whatever `dns:HOST:PORT` resolves to from time to time."""

    def __init__(self, addresses: Sequence[str], connect: Callable[[str], tuple[Any, Any]]) -> None:
        """`connect` gives a channel to an address, and what stubs are made on."""
        self._addresses = list(addresses)
        self._connect = connect
        self._servers: dict[str, Server] = {}
        self._draw = random.Random()
        self._tasks: list[asyncio.Task[None]] = []
        self._leaving: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Raises Unavailable when the name resolves to nothing."""
        await self._resolve()
        if self._by_name:
            self._tasks.append(asyncio.create_task(self._keep_resolving(), name="mynah-resolve"))
        if self._by_name or len(self._addresses) > 1:
            await self._look_at_all()
            self._tasks.append(asyncio.create_task(self._keep_looking(), name="mynah-look"))

    async def close(self) -> None:
        tasks = [*self._tasks, *self._leaving]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(server.channel.close() for server in self._servers.values()))

    @property
    def count(self) -> int:
        return len(self._servers)

    def pick(self, avoid: Collection[str] = ()) -> Server:
        """Where a new stream or call goes. `avoid`: addresses that are taken only if there is no other."""
        return choose(list(self._servers.values()), time.monotonic(), self._draw, avoid)

    def rest_s(self) -> float:
        """Seconds until the first server is worth another try; 0 when one is now."""
        now_s = time.monotonic()
        return max(0.0, min(server.rests_until_s for server in self._servers.values()) - now_s)

    @property
    def _by_name(self) -> bool:
        return self._addresses[0].startswith(_DNS)

    async def _keep_resolving(self) -> None:
        while True:
            await asyncio.sleep(_RESOLVE_EVERY_S)
            with suppress(MynahError):  # a name server that is away changes nothing
                await self._resolve()

    async def _resolve(self) -> None:
        found = await _lookup(self._addresses[0]) if self._by_name else self._addresses
        for address in found:
            if address not in self._servers:
                self._servers[address] = Server(address, *self._connect(address))
        for address in set(self._servers) - set(found):
            task = asyncio.create_task(_close_when_left(self._servers.pop(address)))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            await self._look_at_all()

    async def _look_at_all(self) -> None:
        await asyncio.gather(*(_look(server) for server in self._servers.values()))


async def _look(server: Server) -> None:
    """Ask how busy it is; one that does not answer rests."""
    try:
        async with rpc_errors():
            info = await server.speech.GetServerInfo(speech_pb2.GetServerInfoRequest(), timeout=_LOOK_TIMEOUT_S)
    except MynahError as error:
        server.failed(error)
        return
    server.open_streams, server.own_streams_then = info.open_stream_count, server.own_streams
    server.places = info.limits.max_open_stream_count


async def _close_when_left(server: Server) -> None:
    """A server that is no longer named keeps its connection until this client's streams on it have ended."""
    await server.left.wait()
    await server.channel.close()


async def _lookup(name: str) -> list[str]:
    host, _, port = name.removeprefix(_DNS).rpartition(":")
    try:
        answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=1)  # SOCK_STREAM
    except (OSError, UnicodeError) as error:
        raise Unavailable(f"{name} cannot be resolved: {error}", reason="NAME_UNKNOWN", retry_after_s=1.0) from error
    return sorted({_joined(*answer[4][:2]) for answer in answers})


def _joined(host: Any, port: Any) -> str:
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
