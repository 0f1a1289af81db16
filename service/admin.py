"""The operator's HTTP/1.1 server: /metrics, /healthz and /readyz.

Small on purpose: GET and HEAD, one request per connection, bounded in bytes and time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

from engines.errors import TimeLimitExceeded
from engines.worker_pool import WorkerPool
from service.access.admission import Admission, State
from service.access.hosts import Hosts
from service.access.listener import Listener, Slot, bind
from service.config import is_loopback
from service.listening import unavailable
from service.models import Models
from service.telemetry import metrics

_MAX_HEAD_BYTES = 16_384
_MAX_CONNECTIONS = 32
_TIMEOUT_S = 10.0
_PLAIN = "text/plain; charset=utf-8"
# formatting thousands of lines takes milliseconds, which would delay streams on the event loop
_PAGES = WorkerPool(
    "metrics", workers=2, time_limit_s=8.0, reason="METRICS_TIMEOUT", work="Reading the metrics", max_waiting=100
)
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
_PATHS = "the paths are /metrics, /healthz and /readyz"


@dataclass(frozen=True)
class _Answer:
    status: HTTPStatus
    body: bytes
    content_type: str = _PLAIN


class AdminServer:
    """The operator's endpoints of one server. Use `start`, then at the end `stop`."""

    def __init__(
        self,
        models: Models,
        admission: Admission,
        *,
        max_connections: int = _MAX_CONNECTIONS,
        allowed_hosts: tuple[str, ...] = (),
    ) -> None:
        self._models, self._admission = models, admission
        self._max_connections, self._allowed_hosts = max_connections, allowed_hosts
        self._hosts: Hosts | None = None
        self._listener: Listener | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def start(self, listen: str) -> str:
        """Listen on HOST:PORT. Returns it with the port that was bound. Raises ConfigError if it is not available."""
        try:
            bound = bind(listen)
        except OSError as error:
            raise unavailable("--admin-listen", listen, error) from error
        if is_loopback(listen):  # elsewhere it is on the operator's own network, where scrapers use names of theirs
            self._hosts = Hosts(listen, self._allowed_hosts)
        self._listener = Listener(bound, self._connection, self._max_connections)
        return f"{listen.rpartition(':')[0]}:{bound.getsockname()[1]}"

    def _connection(self, slot: Slot) -> asyncio.Protocol:
        return _Connection(slot, self._serve)

    async def stop(self) -> None:
        """Stop listening and close open connections. Idempotent."""
        if self._listener is not None:
            self._listener.close()
            await self._listener.wait_closed()
            self._listener.end_all()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(_TIMEOUT_S):
                    await self._exchange(reader, writer)
        finally:
            self._open.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return
        except asyncio.LimitOverrunError:
            answer = _error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the limit is {_MAX_HEAD_BYTES} bytes")
            with_body = True
        else:
            request = head.decode("latin-1").split("\r\n")
            answer, with_body = await self._answer(request), not request[0].startswith("HEAD ")
        writer.write(_written(answer, with_body))
        await writer.drain()

    async def _answer(self, request: list[str]) -> _Answer:
        parts = request[0].split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            return _error(HTTPStatus.BAD_REQUEST, "send an HTTP/1.1 request")
        if parts[0] not in ("GET", "HEAD"):
            return _error(HTTPStatus.METHOD_NOT_ALLOWED, "use GET or HEAD")
        if self._hosts is not None and not self._hosts.allows(_header(request, "host") or None):
            return _error(HTTPStatus.FORBIDDEN, "the Host header does not name this server; see --allowed-host")
        match parts[1].partition("?")[0]:
            case "/metrics":
                return await self._metrics(_header(request, "accept"))
            case "/healthz":
                return self._alive()
            case "/readyz":
                return self._ready()
            case _:
                return _error(HTTPStatus.NOT_FOUND, _PATHS)

    async def _metrics(self, accept: str) -> _Answer:
        try:
            serves = self._admission.state is State.SERVING
            models = self._models
            read = partial(metrics.page, models.engines, accept, max_streams=models.max_streams, serves=serves)
            page, content_type = await _PAGES.run(read)
        except TimeLimitExceeded as error:
            return _error(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        return _Answer(HTTPStatus.OK, page, content_type)

    def _alive(self) -> _Answer:
        if self._admission.stalled is not None:
            return _Answer(HTTPStatus.SERVICE_UNAVAILABLE, b"stalled\n")
        return _Answer(HTTPStatus.OK, b"ok\n")

    def _ready(self) -> _Answer:
        state = self._admission.state
        if state is not State.SERVING:
            return _Answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{state.value}\n".encode())
        if not self._models.health.healthy:
            return _Answer(HTTPStatus.SERVICE_UNAVAILABLE, b"rebuilding the engine\n")
        return _Answer(HTTPStatus.OK, b"serving\n")


class _Connection(asyncio.StreamReaderProtocol):
    """A stream that releases its slot at the end."""

    def __init__(self, slot: Slot, serve: Serve) -> None:
        super().__init__(asyncio.StreamReader(limit=_MAX_HEAD_BYTES), serve)
        self._slot = slot

    def connection_lost(self, exc: Exception | None) -> None:
        self._slot.release()
        super().connection_lost(exc)


def _error(status: HTTPStatus, hint: str) -> _Answer:
    return _Answer(status, f"{status.phrase}: {hint.removesuffix('.')}.\n".encode())


def _header(request: list[str], name: str) -> str:
    values = [value.strip() for key, _, value in (line.partition(":") for line in request[1:]) if key.lower() == name]
    return ", ".join(values)


def _written(answer: _Answer, with_body: bool) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\n"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        "Cache-Control: no-store\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (answer.body if with_body else b"")
