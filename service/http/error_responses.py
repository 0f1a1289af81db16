"""Errors as HTTP clients get them: a status, OpenAI's shape with the contract's reason, when to retry."""

from __future__ import annotations

import json
import math
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import Send

from service.errors import FailedPrecondition
from service.handlers.failures import Code, Failure, log_failure, root_cause

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
}
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_ROUTING = {
    404: ("NO_SUCH_PATH", "there is nothing at this path"),
    405: ("METHOD_NOT_ALLOWED", "this path does not have this method"),
}


class HttpError(FailedPrecondition):
    """What only HTTP can get wrong: its status, beside what every refusal says."""

    def __init__(self, status_code: int, reason: str, message: str, *, field: str = "", allowed: str = "") -> None:
        super().__init__(reason, message, field=field, allowed=allowed)
        self.status_code = status_code


class Answer:
    """A failure, ready to be sent."""

    def __init__(self, status_code: int, failure: Failure, allow: str = "") -> None:
        self.status_code = status_code
        self.reason = failure.reason
        self._failure = failure
        self._allow = allow

    @property
    def error(self) -> dict[str, Any]:
        """OpenAI's members, then ours where they apply."""
        failure = self._failure
        kind = "server_error" if self.status_code >= 500 else "invalid_request_error"
        about: dict[str, Any] = {
            "message": failure.message,
            "type": _TYPES.get(self.status_code, kind),
            "param": failure.field or None,
            "code": failure.reason,
        }
        about |= {name: text for name in ("value", "allowed") if (text := getattr(failure, name))}
        if failure.retry_after_s is not None:
            about["retry_after_s"] = failure.retry_after_s
        return about

    @property
    def body(self) -> bytes:
        return json.dumps({"error": self.error}).encode()

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Retry-After in whole seconds as HTTP has it; OpenAI's clients also know the other two."""
        after_s = self._failure.retry_after_s
        headers = {"content-type": "application/json", "x-should-retry": "false" if after_s is None else "true"}
        if after_s is not None:
            headers["retry-after"] = str(math.ceil(after_s))
            headers["retry-after-ms"] = str(math.ceil(after_s * 1000))
        if self.status_code == 401:
            headers["www-authenticate"] = "Bearer"
        if self._allow:
            headers["allow"] = self._allow
        return [(name.encode(), text.encode()) for name, text in headers.items()]

    async def send(self, send: Send, *, close: bool) -> None:
        """As an HTTP response, which may be the connection's last."""
        body = self.body
        headers = [*self.headers, (b"content-length", str(len(body)).encode())]
        if close:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def answer_to(error: Exception, call: str) -> Answer | None:
    """What to tell the client, once the log has it; None when there is nobody to tell."""
    error = root_cause(error)
    if isinstance(error, HTTPException):
        reason, message = _ROUTING.get(error.status_code, ("REQUEST_INVALID", "the request cannot be understood"))
        allow = (error.headers or {}).get("Allow", "")
        failure = Failure(Code.UNIMPLEMENTED, reason, message, allowed=allow)
        return Answer(error.status_code, failure, allow)
    told = log_failure(error, call)
    if told is None:
        return None
    return Answer(error.status_code if isinstance(error, HttpError) else _STATUSES[told.code], told)
