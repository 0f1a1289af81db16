"""Reading HTTP requests within limits: headers, JSON bodies, uploads, and disconnects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

from starlette.types import Message, Receive, Scope

from engines.errors import InvalidInput
from service.errors import ClientGone, DeadlineExceeded
from service.http.error_responses import HttpError

T = TypeVar("T")
_JSON = "application/json"


def header(scope: Scope, name: bytes) -> str | None:
    """Returns the header of this name; None if it is missing or repeated."""
    values = [value for key, value in scope["headers"] if key == name]
    return values[0].decode("latin-1") if len(values) == 1 else None


def media_type(scope: Scope) -> str:
    """Returns the body's media type in lower case, without parameters."""
    return (header(scope, b"content-type") or "").partition(";")[0].strip().lower()


class Body:
    """A request's body with limits on its length and on the wait for each part. An ASGI `receive`."""

    def __init__(self, receive: Receive, max_bytes: int, stall_timeout_s: float) -> None:
        self._receive, self._max_bytes, self._stall_timeout_s = receive, max_bytes, stall_timeout_s
        self._read_bytes = 0

    async def __call__(self) -> Message:
        """Returns the next part. Raises HttpError, DeadlineExceeded, ClientGone."""
        try:
            async with asyncio.timeout(self._stall_timeout_s):
                message = await self._receive()
        except TimeoutError:
            allowed = f"{self._stall_timeout_s:g} s"
            problem = f"No part of the body arrived for {allowed}; send it without long pauses."
            raise DeadlineExceeded("UPLOAD_STALLED", problem, allowed=allowed) from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        self._read_bytes += len(message.get("body", b""))
        if self._read_bytes > self._max_bytes:
            allowed = f"at most {self._max_bytes} bytes"
            raise HttpError(413, "BODY_TOO_LARGE", f"The body is too long; it may have {allowed}.", allowed=allowed)
        return message

    async def read(self) -> bytes:
        """Returns the whole body. Raises HttpError, DeadlineExceeded, ClientGone."""
        read = bytearray()
        while True:
            message = await self()
            read += message.get("body", b"")
            if not message.get("more_body", False):
                return bytes(read)


async def read_json_object(scope: Scope, body: Body) -> dict[str, Any]:
    """Returns the body as a JSON object. Raises HttpError, InvalidInput, DeadlineExceeded, ClientGone."""
    require_media_type(scope, _JSON)  # a form of another page can send text/plain, but not JSON, without a preflight
    try:
        content = json.loads(await body.read())
    except (ValueError, RecursionError) as error:
        raise _invalid_body("not JSON") from error
    if not isinstance(content, dict):
        raise _invalid_body("another JSON value")
    return content


def _invalid_body(content: str) -> InvalidInput:
    allowed = "a JSON object"
    message = f"The body is {content}; send {allowed}."
    return InvalidInput("body", message, "MESSAGE_INVALID", value=content, allowed=allowed)


def require_media_type(scope: Scope, allowed: str) -> None:
    """Raises HttpError unless the content-type is `allowed`."""
    if media_type(scope) != allowed:
        message = f"The content-type of the body must be {allowed}."
        raise HttpError(415, "MEDIA_TYPE_UNSUPPORTED", message, field="content-type", allowed=allowed)


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Awaits `work`; cancels it and raises ClientGone if the client disconnects. The body must have been read."""
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(_raise_on_disconnect(receive))
        result = await work
        watching.cancel()
    return result


async def _raise_on_disconnect(receive: Receive) -> NoReturn:
    while (await receive())["type"] != "http.disconnect":
        pass
    raise ClientGone
