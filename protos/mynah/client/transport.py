"""The gRPC connection: channels, bidirectional calls, and gRPC's errors as MynahError."""

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
    # pings detect a peer that vanished; the server allows one every 10 s
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # gRPC's own limit is two minutes, too long after a restart of the server
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # gRPC would let its window grow to megabytes: a minute of audio on its way to a slow reader, beyond the reach of a
    # cancel. The fixed 64 KiB are enough for 48 kHz float at a round trip of 300 ms.
    ("grpc.http2.bdp_probe", 0),
]
_STATUS_S = 10.0  # an ended call has its status at once, but one that broke in gRPC's core may never get it


def open_channel(server: str, tls: Tls | None) -> grpc.aio.Channel:
    """Returns a channel to HOST:PORT that connects on first use. Raises OSError if a certificate cannot be read."""
    if tls is None:
        return grpc.aio.insecure_channel(server, options=_OPTIONS)
    files = (tls.root_certificates, tls.key, tls.certificate)
    credentials = grpc.ssl_channel_credentials(*(file.read_bytes() if file else None for file in files))
    options = [*_OPTIONS, ("grpc.ssl_target_name_override", tls.server_name)] if tls.server_name else _OPTIONS
    return grpc.aio.secure_channel(server, credentials, options=options)


def with_key(channel: grpc.aio.Channel, api_key: str | None) -> grpc.aio.Channel:
    """Returns a channel for stubs whose calls carry the API key."""
    return channel if api_key is None else cast(grpc.aio.Channel, _KeyedChannel(channel, api_key))


class _KeyedChannel:
    """A channel for stubs whose calls carry an API key.

    gRPC's interceptors would also wrap the calls, and its call credentials refuse connections without TLS, which the
    server may allow.
    """

    def __init__(self, channel: grpc.aio.Channel, api_key: str) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {api_key}"),)

    def __getattr__(self, kind: str) -> Any:
        """`unary_unary` and the other three kinds of calls."""
        make = getattr(self._channel, kind)
        return lambda *args, **options: partial(make(*args, **options), metadata=self._metadata)


def translated(error: grpc.aio.AioRpcError) -> MynahError:
    """Returns the MynahError for an error of gRPC."""
    trailing = error.trailing_metadata()
    pairs = [(str(key), value) for key, value in trailing] if trailing is not None else []
    return from_status(error.code().name, error.details() or error.code().name, pairs)


@asynccontextmanager
async def rpc_errors() -> AsyncIterator[None]:
    """A context in which gRPC's errors become MynahErrors."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise translated(error) from None
    except grpc.aio.UsageError as error:
        raise WrongState(f"The client is closed ({error}).", reason="CLIENT_CLOSED") from None


async def send(call: Any, message: Any) -> bool:
    """Send a message on a call that was started without an iterator. Returns False if the call has ended.

    gRPC's own `write` loses the server's status and reports INTERNAL if the server has ended the call
    (grpc/grpc issue 36066, open as of 1.85), so this uses the layer below it.
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
    """Declare the end of the sent messages. Does nothing if the call has ended."""
    with suppress(grpc.aio.InternalError):
        await call.done_writing()


async def raise_for_status(call: Any) -> None:
    """Raises the error that the call ended with, if any."""
    try:
        async with asyncio.timeout(_STATUS_S):
            code = await call.code()
    except TimeoutError:
        raise ServerError("The call ended without a status. Try again.", reason="NO_STATUS", code="INTERNAL") from None
    if code is not grpc.StatusCode.OK:
        raise from_status(code.name, await call.details() or code.name, list(await call.trailing_metadata() or ()))


class BidiStream:
    """A bidirectional call that survives the cancellation of tasks that wait on it.

    gRPC ends a call if a task is cancelled inside its read or write. Here the read continues and its result goes to the
    next reader, and a write is finished. One task may read at a time.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        call.add_done_callback(lambda ended: ended._metadata_sent.set())  # wakes a waiting `send`
        self._reading: asyncio.Task[Any] | None = None
        self._writing: set[asyncio.Task[None]] = set()
        self._reads, self._writes = asyncio.Lock(), asyncio.Lock()
        self._stored: deque[Any] = deque()  # messages for a later reader
        self._closed = False

    async def read(self) -> Any | None:
        """Returns the next message, or None at the end. Raises MynahError if the call failed."""
        self._must_not_be_closed()
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read())
        try:
            message = await asyncio.shield(self._reading)
        except asyncio.CancelledError:
            raise  # only this task was cancelled; the message goes to the next reader
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
        """Send a message. Raises the call's error if it has ended."""
        self._must_not_be_closed()
        writing = asyncio.ensure_future(self._write(message))
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        await asyncio.shield(writing)

    async def _write(self, message: Any) -> None:
        async with self._writes:
            if await self._guarded(send(self._call, message)):
                return
        async with self._reads:  # the status follows all unread messages
            while (unread := await self._receive()) is not None:
                self._stored.append(unread)
        raise WrongState("The stream has ended.", reason="STREAM_ENDED")

    async def done_writing(self) -> None:
        """Half-close. Does nothing if the call has ended."""
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
        """End the call in any state and wait for its pending reads and writes. Idempotent."""
        self._closed = True
        self._call.cancel()
        running = [*self._writing] if self._reading is None else [*self._writing, self._reading]
        await asyncio.gather(*running, return_exceptions=True)

    def _must_not_be_closed(self) -> None:
        if self._closed:
            raise _closed_error()


def _closed_error() -> StreamCancelled:
    return StreamCancelled("The stream was closed by this client.", reason="STREAM_CLOSED", code="CANCELLED")
