"""Reading HTTP requests within limits: headers, JSON bodies, uploads, and disconnects."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

from starlette.types import Message, Receive, Scope

from engines.errors import InvalidInput
from service.errors import ClientGone, DeadlineExceeded
from service.http.error_responses import HttpError

T = TypeVar("T")
_JSON = "application/json"
_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # the last one may lack its end
# Names and values; brackets, numbers and white space: a dictionary of 1000 entries has 5000 and 20 000.
_MAX_STRINGS, _MAX_BARE_CHARS = 6000, 32_768
_MIN_BYTES_PER_S = 1000  # of a body, once the stall timeout is over


def header(scope: Scope, name: bytes) -> str | None:
    """Returns the header of this name; None if it is missing or repeated."""
    values = [value for key, value in scope["headers"] if key == name]
    return values[0].decode("latin-1") if len(values) == 1 else None


def media_type(scope: Scope) -> str:
    """Returns the body's media type in lower case, without parameters."""
    return (header(scope, b"content-type") or "").partition(";")[0].strip().lower()


class JsonError(ValueError):
    """A text is not JSON, or JSON beyond the limits. `content` says what it is, `allowed` what more is asked of it."""

    def __init__(self, content: str, allowed: str = "") -> None:
        super().__init__(content)
        self.content, self.allowed = content, allowed


def bounded_json(text: str) -> Any:
    """Parses JSON that is small but for its strings. Raises JsonError.

    Half a million brackets would fit into the longest text that is allowed. They take a hundred times its memory, and
    the event loop stands still while they are parsed.
    """
    bare_chars = len(text)
    for strings, match in enumerate(_STRING.finditer(text), start=1):
        bare_chars -= match.end() - match.start()
        if strings > _MAX_STRINGS:
            raise JsonError(f"JSON with more than {_MAX_STRINGS} names and texts", f"at most {_MAX_STRINGS} of them")
    if bare_chars > _MAX_BARE_CHARS:
        content = f"JSON with more than {_MAX_BARE_CHARS} characters beside its texts"
        raise JsonError(content, f"at most {_MAX_BARE_CHARS} brackets, digits and spaces")
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise JsonError("not JSON") from None
    except ValueError:  # Python's own limit on the conversion of numbers
        raise JsonError("JSON with a number of too many digits", "shorter numbers") from None
    except RecursionError:
        raise JsonError("JSON that is nested too deeply", "less nesting") from None


class Body:
    """A request's body with limits on its length, on the wait for each part and on its slowness. An ASGI `receive`."""

    def __init__(
        self, scope: Scope, receive: Receive, max_bytes: int, stall_timeout_s: float, *, advice: str = ""
    ) -> None:
        """`advice` ends the message about a body that is too long: what may be sent, in the endpoint's words.

        Raises HttpError if the headers state that the body is too long or compressed, before any of it is read.
        """
        self._receive, self._max_bytes, self._stall_timeout_s = receive, max_bytes, stall_timeout_s
        self._advice = advice
        self._read_bytes = 0
        self._began_s = asyncio.get_running_loop().time()
        stated = header(scope, b"content-length") or ""  # h11 lets in at most 20 digits
        if stated.isascii() and stated.isdigit() and int(stated) > self._max_bytes:
            raise self._too_long()
        if (header(scope, b"content-encoding") or "identity").lower() != "identity":
            message = "The body is compressed (content-encoding); send it as it is."
            raise HttpError(415, "MEDIA_TYPE_UNSUPPORTED", message, field="content-encoding", allowed="identity")

    def _too_long(self) -> HttpError:
        allowed = f"at most {self._max_bytes} bytes"
        message = f"The body is too long; it may have {allowed}. {self._advice}".rstrip()
        return HttpError(413, "BODY_TOO_LARGE", message, allowed=allowed)

    async def __call__(self) -> Message:
        """Returns the next part. Raises HttpError, DeadlineExceeded, ClientGone."""
        try:
            async with asyncio.timeout(min(self._stall_timeout_s, self._left_s)):
                message = await self._receive()
        except TimeoutError:
            allowed = f"{self._stall_timeout_s:g} s"
            problem = f"The body arrived too slowly, or not at all for {allowed}; send it without long pauses."
            raise DeadlineExceeded("UPLOAD_STALLED", problem, allowed=allowed) from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        self._read_bytes += len(message.get("body", b""))
        if self._read_bytes > self._max_bytes:
            raise self._too_long()
        return message

    @property
    def _left_s(self) -> float:
        """The time in which the next part must arrive, so that one byte now and then does not hold a connection."""
        allowed_s = self._stall_timeout_s + self._read_bytes / _MIN_BYTES_PER_S
        return self._began_s + allowed_s - asyncio.get_running_loop().time()

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
        read = await body.read()
        content = bounded_json(read.decode(json.detect_encoding(read), "surrogatepass"))
    except UnicodeDecodeError:
        raise _invalid_body("not text in UTF-8", "text in UTF-8") from None
    except JsonError as error:
        raise _invalid_body(error.content, error.allowed) from None
    if not isinstance(content, dict):
        raise _invalid_body("another JSON value")
    return content


def _invalid_body(content: str, asked: str = "") -> InvalidInput:
    allowed = f"a JSON object with {asked}" if asked else "a JSON object"
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
