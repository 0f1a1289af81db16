"""Accepts connections up to a limit. A new one at the limit takes the place of the oldest that has asked for nothing.

asyncio's own server accepts until descriptors run out, then logs each failed attempt.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress

log = logging.getLogger("mynah.service")

HANDSHAKE_TIMEOUT_S = 10.0
_RETRY_S = 0.1
_LOG_EVERY_S = 1.0
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 44\r\n\r\nThe server has too many connections; retry.\n"
)


class Slot:
    """The place of one connection. Its protocol says whether it is busy, and releases it at the end."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.transport: asyncio.BaseTransport | None = None
        self.handshake: asyncio.Task[None] | None = None

    def set_busy(self, busy: bool) -> None:
        """A connection that is not busy may be ended for a newer one."""
        self._listener.set_busy(self, busy)

    def release(self) -> None:
        """The connection has ended. Idempotent."""
        self._listener.forget(self)

    def end(self) -> None:
        if self.transport is not None:
            self.transport.abort()  # type: ignore[attr-defined]  # every stream transport has it
        elif self.handshake is not None:
            self.handshake.cancel()


class Listener:
    """One listening socket. Has the two methods of asyncio.Server that uvicorn calls: `close` and `wait_closed`."""

    def __init__(
        self,
        bound: socket.socket,
        protocol: Callable[[Slot], asyncio.BaseProtocol],
        max_connections: int,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        """`protocol` and `tls` are called for each connection."""
        self._bound, self._protocol, self._tls = bound, protocol, tls
        self.max_connections = max_connections
        self._slots: set[Slot] = set()
        self._idle: dict[Slot, None] = {}  # in the order in which they became idle
        self.evicted = 0
        self._logged_s = -_LOG_EVERY_S
        self._unlogged = 0
        self._accepting = asyncio.create_task(self._accept_all(), name="accept")

    @property
    def connections(self) -> int:
        return len(self._slots)

    def close(self) -> None:
        """Stops listening; open connections stay. Idempotent."""
        self._accepting.cancel()
        self._bound.close()

    async def wait_closed(self) -> None:
        await asyncio.gather(self._accepting, return_exceptions=True)

    def end_all(self) -> None:
        """Ends all open connections."""
        for slot in tuple(self._slots):
            slot.end()

    def set_busy(self, slot: Slot, busy: bool) -> None:
        if busy or slot not in self._slots:
            self._idle.pop(slot, None)
        else:
            self._idle[slot] = None

    def forget(self, slot: Slot) -> None:
        self._slots.discard(slot)
        self._idle.pop(slot, None)

    async def _accept_all(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._bound)
            except OSError as error:
                self._log(f"a connection cannot be accepted: {error.strerror}")
                self._evict()
                await asyncio.sleep(_RETRY_S)
                continue
            if len(self._slots) < self.max_connections or self._evict():
                self._admit(connection)
            else:
                self._refuse(connection)
            await asyncio.sleep(0)  # one connection in each pass of the event loop

    def _admit(self, connection: socket.socket) -> None:
        slot = Slot(self)
        self._slots.add(slot)
        self._idle[slot] = None
        slot.handshake = asyncio.create_task(self._hand_over(slot, connection))

    async def _hand_over(self, slot: Slot, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        tls = None if self._tls is None else self._tls()
        timeout_s = None if tls is None else HANDSHAKE_TIMEOUT_S
        try:
            slot.transport, _ = await loop.connect_accepted_socket(
                lambda: self._protocol(slot),
                connection,
                ssl=tls,
                ssl_handshake_timeout=timeout_s,
            )
        except OSError as error:
            log.debug("a connection ended before its handshake: %s", error)
            self._drop(slot, connection)
        except BaseException:
            self._drop(slot, connection)
            raise

    def _drop(self, slot: Slot, connection: socket.socket) -> None:
        slot.release()
        connection.close()

    def _evict(self) -> bool:
        """Ends the connection that has been idle for longest, if any."""
        slot = next(iter(self._idle), None)
        if slot is None:
            return False
        self.forget(slot)
        slot.end()
        self.evicted += 1
        return True

    def _refuse(self, connection: socket.socket) -> None:
        self._log(f"a connection is refused: all {self.max_connections} are in use")
        if self._tls is None:
            with suppress(OSError):
                connection.send(_FULL)
        connection.close()

    def _log(self, problem: str) -> None:
        """Once a second at most."""
        now_s = time.monotonic()
        if now_s - self._logged_s < _LOG_EVERY_S:
            self._unlogged += 1
            return
        log.warning("%s (%d more since the last such line)", problem, self._unlogged)
        self._logged_s, self._unlogged = now_s, 0


def bind(listen: str, *, backlog: int = 1024) -> socket.socket:
    """A listening socket at HOST:PORT. Raises OSError."""
    host, _, port = listen.rpartition(":")
    addresses = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = addresses[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(backlog)
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound
