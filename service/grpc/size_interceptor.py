"""The gRPC interceptor that refuses messages before they are parsed if they are longer than any valid one.

It also gives messages that cannot be parsed a typed error, in methods of any kind, ends a call whose only message does
not arrive, and bounds the calls that have sent nothing and those of reflection, which need no slot.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import wraps
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from engines.errors import InvalidInput
from service.errors import DeadlineExceeded
from service.grpc.places import Places
from service.grpc.status import grpc_errors

MESSAGE_TIMEOUT_S = 30.0  # of a call with one message: 4 MB at 140 kB/s
MAX_MESSAGE_BYTES = 4 * 1024 * 1024  # with audio in it: an upload's part, a Riva prompt
_WITH_AUDIO = ("/mynah.v1.Voices/CreateVoice", "/nvidia.riva.tts.RivaSpeechSynthesis/")
_OTHERS = "/grpc."  # health and reflection
_MAX_OTHER_BYTES = 16 * 1024
_REFLECTION = "/grpc.reflection."
MAX_WAITING = 2000  # calls on all connections whose first message has not arrived
MAX_REFLECTIONS, MAX_REFLECTIONS_OF_CONNECTION = 64, 4

Context = grpc.aio.ServicerContext[Any, Any]
Behaviour = Callable[[Any, Context], Any]


class _Unreadable:
    """Stands for a message that was refused. An exception in a deserializer would end the call without a type."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class SizeInterceptor(grpc.aio.ServerInterceptor):
    """Bounds the messages of each method. `max_bytes` holds for those without audio."""

    def __init__(self, max_bytes: int, max_waiting: int = MAX_WAITING) -> None:
        self._max_bytes = max_bytes
        self.waiting = Places(
            "calls that wait for their first message",
            "CALLS_EXHAUSTED",
            "send the message with the call, and retry",
            max_waiting,
            max_waiting,
        )
        self.reflections = Places(
            "calls of reflection",
            "REFLECTIONS_EXHAUSTED",
            "end some, and retry",
            MAX_REFLECTIONS,
            MAX_REFLECTIONS_OF_CONNECTION,
        )

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler
        method = str(handler_call_details.method)
        max_bytes = self._max_bytes_of(method)
        handler = handler._replace(request_deserializer=_bounded(handler.request_deserializer, max_bytes))
        if not handler.request_streaming:
            # as a stream of one message, which is the same to its client: the wait for the message can be limited
            behaviour = self._of_one_message(handler.unary_stream or handler.unary_unary)
            return handler._replace(
                stream_stream=behaviour,
                request_streaming=True,
                response_streaming=True,
                unary_unary=None,
                unary_stream=None,
            )
        kind = "stream_stream" if handler.response_streaming else "stream_unary"
        wrap = self._of_reflection if method.startswith(_REFLECTION) else self._of_messages
        return handler._replace(**{kind: wrap(getattr(handler, kind))})

    def _max_bytes_of(self, method: str) -> int:
        if method.startswith(_WITH_AUDIO):
            return MAX_MESSAGE_BYTES
        return _MAX_OTHER_BYTES if method.startswith(_OTHERS) else self._max_bytes

    def _of_messages(self, behaviour: Behaviour) -> Behaviour:
        """The behaviour of a method, without messages that were refused. Async functions only, as all of ours are."""

        @wraps(behaviour)
        async def checked(requests: AsyncIterator[Any], context: Context) -> Any:
            return await _awaited(behaviour(self._begun(_readable(requests), context), context), context)

        return checked

    def _of_one_message(self, behaviour: Behaviour) -> Behaviour:
        """The behaviour of a method with one message, as one with a stream of them: the message must arrive in time."""

        @wraps(behaviour)
        async def checked(requests: AsyncIterator[Any], context: Context) -> None:
            request = None
            async with grpc_errors(context, "call"):
                request = await self._only(requests, context)
            if request is None:
                return  # the client has left
            if (response := await _awaited(behaviour(request, context), context)) is not None:
                await context.write(response)

        return checked

    def _of_reflection(self, behaviour: Behaviour) -> Behaviour:
        """The behaviour of a method that clients without a key may call and keep open."""

        @wraps(behaviour)
        async def checked(requests: AsyncIterator[Any], context: Context) -> None:
            async with grpc_errors(context, "reflection"), _placed(self.reflections, context, MESSAGE_TIMEOUT_S):
                await _awaited(behaviour(_readable(requests), context), context)

        return checked

    async def _begun(self, requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        """The messages. The call has a place until the first one has arrived. Raises ResourceExhausted."""
        with suppress(StopAsyncIteration):
            async with _placed(self.waiting, context, None):
                first = await anext(requests)
            yield first
            async for request in requests:
                yield request

    async def _only(self, requests: AsyncIterator[Any], context: Context) -> Any:
        """Returns the one message of a call. Raises DeadlineExceeded, InvalidInput, DecodeError, ResourceExhausted."""
        try:
            async with _placed(self.waiting, context, MESSAGE_TIMEOUT_S):
                return await anext(_readable(requests))
        except StopAsyncIteration:
            problem = "The call has no message; send one."
            raise InvalidInput("message", problem, "MESSAGE_INVALID", value="nothing", allowed="one message") from None


@asynccontextmanager
async def _placed(places: Places, context: Context, limit_s: float | None) -> AsyncIterator[None]:
    """Holds a place inside the block, for a limited time. Raises ResourceExhausted, DeadlineExceeded."""
    given_away = False

    def end() -> None:
        nonlocal given_away
        given_away = True
        if not limit.expired():
            limit.reschedule(0)

    limit = asyncio.timeout(limit_s)
    try:
        async with limit:
            with places.hold(str(context.peer()), end):
                yield
    except TimeoutError:
        if given_away:
            raise places.exhausted() from None
        if not limit.expired():
            raise
        allowed = f"{limit_s:g} s"
        problem = f"The call's message did not arrive within {allowed}; send it with the call."
        raise DeadlineExceeded("MESSAGE_STALLED", problem, allowed=allowed) from None


def _bounded(parse: Callable[[bytes], Any], max_bytes: int) -> Callable[[bytes], Any]:
    def parse_bounded(data: bytes) -> Any:
        if len(data) > max_bytes:
            length, allowed = f"{len(data)} bytes", f"at most {max_bytes} bytes"
            message = f"The message has {length}; it may have {allowed}."
            return _Unreadable(InvalidInput("message", message, "MESSAGE_TOO_LARGE", value=length, allowed=allowed))
        try:
            return parse(data)
        except DecodeError as error:
            return _Unreadable(error)

    return parse_bounded


async def _readable(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        if isinstance(request, _Unreadable):
            raise request.error
        yield request


async def _awaited(result: Any, context: Context) -> Any:
    """The end of a method that is a coroutine, or an async generator such as reflection's."""
    if not hasattr(result, "__aiter__"):
        return await result
    async for response in result:
        await context.write(response)
    return None
