"""What comes in over HTTP, within bounds: JSON bodies, uploads, and the news that a client has left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

from starlette.types import Message, Receive, Scope

from engines.errors import invalid_value
from service.errors import ClientGone, DeadlineExceeded
from service.http.error_responses import HttpError

T = TypeVar("T")
_JSON = "application/json"


def header(scope: Scope, name: bytes) -> str | None:
    """The one header of that name; None when there is none, or when there are several."""
    found = [value for key, value in scope["headers"] if key == name]
    return found[0].decode("latin-1") if len(found) == 1 else None


def media_type(scope: Scope) -> str:
    """The body's, in lower case and without parameters."""
    return (header(scope, b"content-type") or "").partition(";")[0].strip().lower()


class Body:
    """A request's body, with a limit on its length and on every wait for more. Fulfils ASGI's `receive`."""

    def __init__(self, receive: Receive, max_bytes: int, stall_timeout_s: float) -> None:
        self._receive, self._max_bytes, self._stall_timeout_s = receive, max_bytes, stall_timeout_s
        self._read_bytes = 0

    async def __call__(self) -> Message:
        """The next part. Raises HttpRefused, TookTooLong, ClientGone."""
        try:
            async with asyncio.timeout(self._stall_timeout_s):
                message = await self._receive()
        except TimeoutError:
            allowed = f"{self._stall_timeout_s:g} s"
            raise DeadlineExceeded("UPLOAD_STALLED", f"nothing came for {allowed}", allowed=allowed) from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        self._read_bytes += len(message.get("body", b""))
        if self._read_bytes > self._max_bytes:
            allowed = f"at most {self._max_bytes} bytes"
            raise HttpError(413, "BODY_TOO_LARGE", f"the body is too long; allowed: {allowed}", allowed=allowed)
        return message

    async def whole(self) -> bytes:
        """All of it."""
        read = bytearray()
        while True:
            message = await self()
            read += message.get("body", b"")
            if not message.get("more_body", False):
                return bytes(read)


async def json_object(scope: Scope, body: Body) -> dict[str, Any]:
    """The body as a JSON object. Raises HttpRefused, InvalidInput, TookTooLong, ClientGone."""
    must_be(scope, _JSON)  # a form on somebody's page can send text/plain, but not this, without asking first
    try:
        found = json.loads(await body.whole())
    except (ValueError, RecursionError) as error:
        raise invalid_value("body", "what is no JSON", "a JSON object", "MESSAGE_INVALID") from error
    if not isinstance(found, dict):
        raise invalid_value("body", type(found).__name__, "a JSON object", "MESSAGE_INVALID")
    return found


def must_be(scope: Scope, allowed: str) -> None:
    """Raises HttpRefused unless the body is declared as that media type."""
    if media_type(scope) != allowed:
        message = f"the body's content-type is not understood; allowed: {allowed}"
        raise HttpError(415, "MEDIA_TYPE_UNSUPPORTED", message, field="content-type", allowed=allowed)


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Work that ends at once when the client leaves: then raises ClientGone. The request's body was read before."""
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(_raise_when_gone(receive))
        result = await work
        watching.cancel()
    return result


async def _raise_when_gone(receive: Receive) -> NoReturn:
    while (await receive())["type"] != "http.disconnect":
        pass
    raise ClientGone
