"""The gRPC connection: channels, and gRPC's errors turned into ours. The only place here that names grpc's classes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar, cast

import grpc
import grpc.aio

from mynah.client.errors import MynahError, ServerError, StreamCancelled, WrongState, from_status
from mynah.client.settings import Tls

T = TypeVar("T")

_OPTIONS = [
    # pings notice a peer that vanished without a word; the server allows them from every 10 s on
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # gRPC would wait for up to two minutes before it looks again whether a server that was away is back
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # gRPC would let its window grow to megabytes, a minute of audio between server and a slow reader that no cancel
    # can call back; the fixed 64 KiB are enough for 48 kHz float at a round trip of 300 ms
    ("grpc.http2.bdp_probe", 0),
]
_STATUS_S = 10.0  # a call that has ended has its status at once; one that broke in gRPC's core may never get it


def open_channel(server: str, tls: Tls | None) -> grpc.aio.Channel:
    """A channel to HOST:PORT; connects on first use. Raises OSError when a certificate file cannot be read."""
    if tls is None:
        return grpc.aio.insecure_channel(server, options=_OPTIONS)
    files = (tls.root_certificates, tls.key, tls.certificate)
    credentials = grpc.ssl_channel_credentials(*(file.read_bytes() if file else None for file in files))
    options = [*_OPTIONS, ("grpc.ssl_target_name_override", tls.server_name)] if tls.server_name else _OPTIONS
    return grpc.aio.secure_channel(server, credentials, options=options)


def with_key(channel: grpc.aio.Channel, api_key: str | None) -> grpc.aio.Channel:
    """What stubs are made on so that their calls carry an API key."""
    return channel if api_key is None else cast(grpc.aio.Channel, _KeyedChannel(channel, api_key))


class _KeyedChannel:
    """A channel for stubs whose every call carries an API key. gRPC's own interceptors would wrap the calls as well,
    and its call credentials refuse a connection without TLS, where the server decides whether that is allowed."""

    def __init__(self, channel: grpc.aio.Channel, api_key: str) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {api_key}"),)

    def __getattr__(self, kind: str) -> Any:
        """`unary_unary` and its three sisters."""
        make = getattr(self._channel, kind)
        return lambda *args, **options: partial(make(*args, **options), metadata=self._metadata)


def translated(error: grpc.aio.AioRpcError) -> MynahError:
    """Our error for gRPC's."""
    trailing = error.trailing_metadata()
    pairs = [(str(key), value) for key, value in trailing] if trailing is not None else []
    return from_status(error.code().name, error.details() or error.code().name, pairs)


@asynccontextmanager
async def rpc_errors() -> AsyncIterator[None]:
    """Inside, gRPC's errors come out as ours."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise translated(error) from None
    except grpc.aio.UsageError as error:
        raise WrongState(f"the client is closed ({error})", reason="CLIENT_CLOSED") from None


async def send(call: Any, message: Any) -> bool:
    """Send a message on a call that was started without an iterator; False when the call has ended.

    gRPC's own `write` does the same, but when the server ended the call first it forgets the server's status and
    reports INTERNAL (grpc/grpc issue 36066, open as of 1.85). So this goes to the layer right below it.
    """
    await call._metadata_sent.wait()
    if call.done():
        return False
    try:
        await call._cython_call.send_serialized_message(message.SerializeToString())
    except grpc.aio.InternalError:
        return False
    return True


async def half_close(call: Any) -> None:
    """Say that nothing more will be sent; nothing happens when the call has ended."""
    with suppress(grpc.aio.InternalError):
        await call.done_writing()


async def raise_for_status(call: Any) -> None:
    """Raise the error that a call ended with, if it ended with one."""
    try:
        async with asyncio.timeout(_STATUS_S):
            code = await call.code()
    except TimeoutError:
        raise ServerError("the call broke down without a status", reason="NO_STATUS", code="INTERNAL") from None
    if code is not grpc.StatusCode.OK:
        raise from_status(code.name, await call.details() or code.name, list(await call.trailing_metadata() or ()))


class Duplex:
    """One bidirectional call that survives the cancelling of tasks which wait on it.

    gRPC ends a call when a task is cancelled inside its read or write; here the read goes on and its result goes to
    the next reader, and a write is finished. Reads are for one task at a time.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        call.add_done_callback(lambda ended: ended._metadata_sent.set())  # for `send`: nothing else would wake it
        self._reading: asyncio.Task[Any] | None = None
        self._writing: set[asyncio.Task[None]] = set()
        self._reads, self._writes = asyncio.Lock(), asyncio.Lock()
        self._stored: deque[Any] = deque()  # read on behalf of a later reader
        self._closed = False

    async def read(self) -> Any | None:
        """The next message; None at the end. Raises MynahError when the call failed, StreamCancelled after close."""
        self._must_not_be_closed()
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read())
        try:
            message = await asyncio.shield(self._reading)
        except asyncio.CancelledError:
            raise  # this task's own end; what is read meanwhile is for the next reader
        except MynahError:
            self._reading = None
            raise
        self._reading = None
        return message

    async def _read(self) -> Any | None:
        async with self._reads:
            return self._stored.popleft() if self._stored else await self._receive()

    async def _receive(self) -> Any | None:
        message = await self._guarded(self._call.read())
        if message is not grpc.aio.EOF:
            return message
        await self._guarded(raise_for_status(self._call))
        return None

    async def write(self, message: Any) -> None:
        """Send a message. Raises the call's own error when it has ended, StreamCancelled after close."""
        self._must_not_be_closed()
        writing = asyncio.ensure_future(self._write(message))
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        await asyncio.shield(writing)

    async def _write(self, message: Any) -> None:
        async with self._writes:
            if await self._guarded(send(self._call, message)):
                return
        async with self._reads:  # the status comes behind all that nobody has read yet
            while (unread := await self._receive()) is not None:
                self._stored.append(unread)
        raise WrongState("the stream has ended", reason="STREAM_ENDED")

    async def done_writing(self) -> None:
        """Half-close; nothing happens when the call has ended."""
        async with self._writes:
            await self._guarded(half_close(self._call))

    async def _guarded(self, operation: Awaitable[T]) -> T:
        try:
            async with rpc_errors():
                return await operation
        except asyncio.CancelledError:
            if self._call.cancelled():  # the call was cancelled, not this task
                raise _closed_error() from None
            raise

    async def close(self) -> None:
        """End the call, whatever its state, and wait for what still runs on it. Idempotent."""
        self._closed = True
        self._call.cancel()
        running = [*self._writing] if self._reading is None else [*self._writing, self._reading]
        await asyncio.gather(*running, return_exceptions=True)

    def _must_not_be_closed(self) -> None:
        if self._closed:
            raise _closed_error()


def _closed_error() -> StreamCancelled:
    return StreamCancelled("the stream was closed by this client", reason="STREAM_CLOSED", code="CANCELLED")
