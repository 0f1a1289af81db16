"""Load balancing over the servers of a client: their addresses, their load, and the choice for a new stream."""

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
_POLL_EVERY_S = 2.0
_POLL_TIMEOUT_S = 1.0
_COOLDOWN_S = 1.0  # after an error without `retry_after_s`


@dataclass
class Server:
    """One address, its connection and its load. `capacity` is the number of streams it admits; 0 while unknown."""

    address: str
    channel: Any  # grpc.aio.Channel
    calls: Any  # the channel for stubs; it adds the API key
    speech: Any = field(init=False)  # SpeechStub
    own_streams: int = 0
    idle: asyncio.Event = field(init=False, default_factory=asyncio.Event)  # set while own_streams is 0
    open_streams: int = 0  # of all clients, at the last poll
    own_streams_at_poll: int = 0
    capacity: int = 0
    cooling_until_s: float = 0.0

    def __post_init__(self) -> None:
        self.speech = speech_pb2_grpc.SpeechStub(self.calls)  # type: ignore[no-untyped-call]
        self.idle.set()

    @property
    def load(self) -> float:
        """Streams per unit of capacity: the last polled count plus this client's changes since."""
        streams = max(0, self.open_streams + self.own_streams - self.own_streams_at_poll)
        return streams / self.capacity if self.capacity else float(streams)

    def cooling_down(self, now_s: float) -> bool:
        return now_s < self.cooling_until_s

    def acquire(self) -> None:
        """Count a new stream of this client."""
        self.own_streams += 1
        self.idle.clear()

    def release(self) -> None:
        """Count the end of a stream of this client."""
        self.own_streams -= 1
        if not self.own_streams:
            self.idle.set()

    def failed(self, error: MynahError) -> None:
        """Start the cooldown after a failed call. Other servers are preferred until it ends."""
        self.cooling_until_s = time.monotonic() + (error.retry_after_s or _COOLDOWN_S)


def choose_server(servers: Sequence[Server], now_s: float, draw: random.Random, avoid: Collection[str] = ()) -> Server:
    """Returns the less loaded of two random servers, so that many clients do not all overrun the emptiest one.

    Servers in `avoid` are used only if all others are cooling down, and servers that are cooling down only if there
    are no others.
    """
    preferred = [s for s in servers if not s.cooling_down(now_s) and s.address not in avoid]
    available = [s for s in servers if not s.cooling_down(now_s)]
    candidates = preferred or available or servers
    drawn = draw.sample(candidates, min(2, len(candidates)))
    return min(drawn, key=lambda server: server.load)


class Servers:
    """A fixed list of addresses, or the addresses behind `dns:HOST:PORT`, resolved again from time to time."""

    def __init__(self, addresses: Sequence[str], connect: Callable[[str], tuple[Any, Any]]) -> None:
        """`connect` returns a channel to an address, and the same channel for stubs."""
        self._addresses = list(addresses)
        self._connect = connect
        self._servers: dict[str, Server] = {}
        self._draw = random.Random()
        self._tasks: list[asyncio.Task[None]] = []
        self._draining: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Raises Unavailable if the name cannot be resolved."""
        await self._resolve()
        if self._by_name:
            self._tasks.append(asyncio.create_task(self._keep_resolving(), name="mynah-resolve"))
        if self._by_name or len(self._addresses) > 1:
            await self._poll_all()
            self._tasks.append(asyncio.create_task(self._keep_polling(), name="mynah-poll-load"))

    async def close(self) -> None:
        tasks = [*self._tasks, *self._draining]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(server.channel.close() for server in self._servers.values()))

    @property
    def count(self) -> int:
        return len(self._servers)

    def pick(self, avoid: Collection[str] = ()) -> Server:
        """Returns the server for a new stream or call; see `choose_server`."""
        return choose_server(list(self._servers.values()), time.monotonic(), self._draw, avoid)

    def cooldown_s(self) -> float:
        """Returns the seconds until the first server has cooled down; 0 if one is available now."""
        now_s = time.monotonic()
        return max(0.0, min(server.cooling_until_s for server in self._servers.values()) - now_s)

    @property
    def _by_name(self) -> bool:
        return self._addresses[0].startswith(_DNS)

    async def _keep_resolving(self) -> None:
        while True:
            await asyncio.sleep(_RESOLVE_EVERY_S)
            with suppress(MynahError):  # without an answer of the name server the addresses stay as they are
                await self._resolve()

    async def _resolve(self) -> None:
        addresses = await _resolve_name(self._addresses[0]) if self._by_name else self._addresses
        for address in addresses:
            if address not in self._servers:
                self._servers[address] = Server(address, *self._connect(address))
        for address in set(self._servers) - set(addresses):
            task = asyncio.create_task(_close_when_idle(self._servers.pop(address)))
            self._draining.add(task)
            task.add_done_callback(self._draining.discard)

    async def _keep_polling(self) -> None:
        while True:
            await asyncio.sleep(_POLL_EVERY_S)
            await self._poll_all()

    async def _poll_all(self) -> None:
        await asyncio.gather(*(_poll_load(server) for server in self._servers.values()))


async def _poll_load(server: Server) -> None:
    """Ask a server for its load. A server that does not answer cools down."""
    try:
        async with rpc_errors():
            info = await server.speech.GetServerInfo(speech_pb2.GetServerInfoRequest(), timeout=_POLL_TIMEOUT_S)
    except MynahError as error:
        server.failed(error)
        return
    server.open_streams, server.own_streams_at_poll = info.open_stream_count, server.own_streams
    server.capacity = info.limits.max_open_stream_count


async def _close_when_idle(server: Server) -> None:
    """Close the connection to a server that left the name, once this client's streams on it have ended."""
    await server.idle.wait()
    await server.channel.close()


async def _resolve_name(name: str) -> list[str]:
    host, _, port = name.removeprefix(_DNS).rpartition(":")
    try:
        answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=1)  # SOCK_STREAM
    except (OSError, UnicodeError) as error:
        raise Unavailable(
            f"The name {name} cannot be resolved: {error}. Check it, or try again later.",
            reason="NAME_UNKNOWN",
            retry_after_s=1.0,
        ) from error
    return sorted({_host_port(*answer[4][:2]) for answer in answers})


def _host_port(host: Any, port: Any) -> str:
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
