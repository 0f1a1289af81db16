"""The gRPC interceptor that refuses messages before they are parsed if they are longer than any valid one.

It also gives messages that cannot be parsed a typed error, in methods of any kind.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import wraps
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from engines.errors import InvalidInput
from service.grpc.status import grpc_errors

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
        sides = (handler.request_streaming, handler.response_streaming)
        kind = "_".join("stream" if streams else "unary" for streams in sides)
        checked = {kind: _checked(getattr(handler, kind), streaming=handler.request_streaming)}
        return handler._replace(request_deserializer=_bounded(handler.request_deserializer, max_bytes), **checked)

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


def _checked(behaviour: Behaviour, *, streaming: bool) -> Behaviour:
    """The behaviour of a method, without messages that were refused. Async functions only, as all of ours are."""

    @wraps(behaviour)
    async def checked(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        if streaming:
            return await _awaited(behaviour(_readable(request), context), context)
        if isinstance(request, _Unreadable):
            async with grpc_errors(context, "call"):
                raise request.error
        return await _awaited(behaviour(request, context), context)

    return checked


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
