"""The gRPC interceptor that refuses messages before they are parsed if they are longer than any valid one.

It also gives messages that cannot be parsed a typed error, in methods of any kind, and ends a call whose only message
does not arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import wraps
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from engines.errors import InvalidInput
from service.errors import DeadlineExceeded
from service.grpc.status import grpc_errors

MESSAGE_TIMEOUT_S = 30.0  # of a call with one message: 4 MB at 140 kB/s
MAX_MESSAGE_BYTES = 4 * 1024 * 1024  # with audio in it: an upload's part, a Riva prompt
_WITH_AUDIO = ("/mynah.v1.Voices/CreateVoice", "/nvidia.riva.tts.RivaSpeechSynthesis/")
_OTHERS = "/grpc."  # health and reflection
_MAX_OTHER_BYTES = 16 * 1024

Behaviour = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Any]


class _Unreadable:
    """Stands for a message that was refused. An exception in a deserializer would end the call without a type."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class SizeInterceptor(grpc.aio.ServerInterceptor):
    """Bounds the messages of each method. `max_bytes` holds for those without audio."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler
        max_bytes = self._max_bytes_of(str(handler_call_details.method))
        handler = handler._replace(request_deserializer=_bounded(handler.request_deserializer, max_bytes))
        if not handler.request_streaming:
            # as a stream of one message, which is the same to its client: the wait for the message can be limited
            behaviour = _of_one_message(handler.unary_stream or handler.unary_unary)
            return handler._replace(
                stream_stream=behaviour,
                request_streaming=True,
                response_streaming=True,
                unary_unary=None,
                unary_stream=None,
            )
        kind = "stream_stream" if handler.response_streaming else "stream_unary"
        return handler._replace(**{kind: _of_messages(getattr(handler, kind))})

    def _max_bytes_of(self, method: str) -> int:
        if method.startswith(_WITH_AUDIO):
            return MAX_MESSAGE_BYTES
        return _MAX_OTHER_BYTES if method.startswith(_OTHERS) else self._max_bytes


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


def _of_messages(behaviour: Behaviour) -> Behaviour:
    """The behaviour of a method, without messages that were refused. Async functions only, as all of ours are."""

    @wraps(behaviour)
    async def checked(requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        return await _awaited(behaviour(_readable(requests), context), context)

    return checked


def _of_one_message(behaviour: Behaviour) -> Behaviour:
    """The behaviour of a method with one message, as one with a stream of them: the message must arrive in time."""

    @wraps(behaviour)
    async def checked(requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]) -> None:
        async with grpc_errors(context, "call"):
            request = await _only(requests)
        if (response := await _awaited(behaviour(request, context), context)) is not None:
            await context.write(response)

    return checked


async def _only(requests: AsyncIterator[Any]) -> Any:
    """Returns the one message of a call. Raises DeadlineExceeded, InvalidInput, DecodeError."""
    try:
        async with asyncio.timeout(MESSAGE_TIMEOUT_S):
            return await anext(_readable(requests))
    except StopAsyncIteration:
        problem = "The call has no message; send one."
        raise InvalidInput("message", problem, "MESSAGE_INVALID", value="nothing", allowed="one message") from None
    except TimeoutError:
        allowed = f"{MESSAGE_TIMEOUT_S:g} s"
        problem = f"The call's message did not arrive within {allowed}; send it with the call."
        raise DeadlineExceeded("MESSAGE_STALLED", problem, allowed=allowed) from None


async def _readable(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        if isinstance(request, _Unreadable):
            raise request.error
        yield request


async def _awaited(result: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
    """The end of a method that is a coroutine, or an async generator such as reflection's."""
    if not hasattr(result, "__aiter__"):
        return await result
    async for response in result:
        await context.write(response)
    return None
