"""HTTP error responses: a status, OpenAI's JSON with the contract's reason, and when to retry."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import Send

from service.errors import FailedPrecondition
from service.handlers.failures import Code, Failure, log_failure, root_cause

# A key of an ASGI message, which is then sent however much the client has not read: the error that ends a response, and
# the rest of an event that was begun. The connection of such a response takes no further request.
UNPACED = "mynah.unpaced"

_STATUSES = {
    Code.INVALID_ARGUMENT: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.DEADLINE_EXCEEDED: 408,
    Code.ALREADY_EXISTS: 409,
    Code.FAILED_PRECONDITION: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
}
_REASON_STATUSES = {"STORAGE_FULL": 507}  # where HTTP has a status of its own
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_ROUTING = {
    404: ("NO_SUCH_PATH", "There is no such path; docs/http.md lists the paths."),
    405: ("METHOD_NOT_ALLOWED", "This path does not support this method."),
}


class HttpError(FailedPrecondition):
    """An error that only HTTP has, with its status code."""

    def __init__(self, status_code: int, reason: str, message: str, *, field: str = "", allowed: str = "") -> None:
        super().__init__(reason, message, field=field, allowed=allowed)
        self.status_code = status_code


class ErrorResponse:
    """The HTTP response for a failure."""

    def __init__(self, status_code: int, failure: Failure, allow: str = "") -> None:
        self.status_code = status_code
        self.reason = failure.reason
        self._failure = failure
        self._allow = allow

    @property
    def error(self) -> dict[str, Any]:
        """OpenAI's members, then `value`, `allowed` and `retry_after_s` if they apply."""
        failure = self._failure
        kind = "server_error" if self.status_code >= 500 else "invalid_request_error"
        error: dict[str, Any] = {
            "message": failure.message,
            "type": _TYPES.get(self.status_code, kind),
            "param": failure.field or None,
            "code": failure.reason,
        }
        error |= {name: text for name in ("value", "allowed") if (text := getattr(failure, name))}
        if failure.retry_after_s is not None:
            error["retry_after_s"] = failure.retry_after_s
        return error

    @property
    def body(self) -> bytes:
        return json.dumps({"error": self.error}).encode()

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Includes the retry headers: HTTP's, in whole seconds, and the two that OpenAI's clients read."""
        after_s = self._failure.retry_after_s
        headers = {"content-type": "application/json", "x-should-retry": "false" if after_s is None else "true"}
        if after_s is not None:
            headers["retry-after"] = str(math.ceil(after_s))
            headers["retry-after-ms"] = str(math.ceil(after_s * 1000))
        if self.status_code == 401:
            headers["www-authenticate"] = "Bearer"
        if self.status_code == 426:
            headers["upgrade"] = "websocket"
        if self._allow:
            headers["allow"] = self._allow
        return [(name.encode(), text.encode()) for name, text in headers.items()]

    async def send(self, send: Send, before_close: Callable[[], Awaitable[object]] | None = None) -> None:
        """Sends the response. With `before_close` it is the connection's last, and that is awaited before its end."""
        body = self.body
        headers = [*self.headers, (b"content-length", str(len(body)).encode())]
        if before_close is not None:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": before_close is not None})
        if before_close is not None:
            await before_close()
            await send({"type": "http.response.body", "body": b""})


def invalid_request(problem: str, status_code: int = 400) -> ErrorResponse:
    """The response for what is not HTTP, or not a WebSocket's handshake, and so reaches no endpoint."""
    message = f"The request is not valid HTTP/1.1: {problem}. Correct it before you send it again."
    return ErrorResponse(status_code, Failure(Code.INVALID_ARGUMENT, "REQUEST_INVALID", message))


def no_proxy() -> ErrorResponse:
    """The response for CONNECT."""
    message = "This server is no proxy: CONNECT is not allowed; send the request itself."
    return ErrorResponse(405, Failure(Code.UNIMPLEMENTED, "METHOD_NOT_ALLOWED", message, field="method"))


def error_response(error: Exception, call: str) -> ErrorResponse | None:
    """Logs the error and returns the response to send, or None if the client has disconnected."""
    error = root_cause(error)
    if isinstance(error, HTTPException):
        reason, message = _ROUTING.get(error.status_code, ("REQUEST_INVALID", "The request is not valid HTTP."))
        allow = (error.headers or {}).get("Allow", "")
        failure = Failure(Code.UNIMPLEMENTED, reason, message, allowed=allow)
        return ErrorResponse(error.status_code, failure, allow)
    logged = log_failure(error, call)
    if logged is None:
        return None
    status = _REASON_STATUSES.get(logged.reason, _STATUSES[logged.code])
    return ErrorResponse(error.status_code if isinstance(error, HttpError) else status, logged)
