"""The client's exceptions, and their translation from a gRPC status and its details.

gRPC is not imported here, so that `import mynah` stays fast.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

DETAILS_KEY = "grpc-status-details-bin"
DOMAIN = "mynah"


_MAX_SHOWN_CHARS = 80  # of what a client sent; more would hide what the error says


def quoted(value: object) -> str:
    """Returns a refused value as an error repeats it: in quotes if it is a text, the end of a long one cut off."""
    try:
        shown = repr(value)
    except ValueError:  # a whole number of more digits than Python writes
        shown = "a very large number"
    return shown if len(shown) <= _MAX_SHOWN_CHARS else shown[: _MAX_SHOWN_CHARS - 3] + "..."


class MynahError(Exception):
    """The base class of all errors that the client raises about a call.

    `reason` is a stable UPPER_SNAKE identifier for programs; `code` is the name of the gRPC status. `retryable` is True
    if the same call may succeed later, and `retry_after_s` is the wait that the server suggests. `field`, `value` and
    `allowed` describe the part of the request that was wrong; they are empty for other errors.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        code: str = "",
        retry_after_s: float | None = None,
        field: str = "",
        value: str = "",
        allowed: str = "",
    ) -> None:
        super().__init__(message)
        self.reason = reason or code
        self.code = code
        self.retryable = retry_after_s is not None
        self.retry_after_s = retry_after_s
        self.field = field
        self.value = value
        self.allowed = allowed


class InvalidArgument(MynahError):
    """The request is invalid; see `field`, `value` and `allowed`."""


class NotFound(MynahError):
    """The voice does not exist."""


class NotAllowed(MynahError):
    """The API key is missing or not known to the server."""


class AlreadyExists(MynahError):
    """The chosen voice id is already in use."""


class WrongState(MynahError):
    """The call is out of order, or its object is in a state that does not allow it."""


class ServerBusy(MynahError):
    """The server has no room for another stream (retryable) or for more text on this one."""


class Unavailable(MynahError):
    """The server cannot be reached, is not ready, or is shutting down."""


class TimedOut(MynahError):
    """A deadline or a time limit of the stream expired."""


class StreamCancelled(MynahError):
    """The call was cancelled by this client."""


class ServerError(MynahError):
    """The server failed."""


_CLASSES: dict[str, type[MynahError]] = {
    "INVALID_ARGUMENT": InvalidArgument,
    "OUT_OF_RANGE": InvalidArgument,
    "NOT_FOUND": NotFound,
    "UNAUTHENTICATED": NotAllowed,
    "ALREADY_EXISTS": AlreadyExists,
    "FAILED_PRECONDITION": WrongState,
    "RESOURCE_EXHAUSTED": ServerBusy,
    "UNAVAILABLE": Unavailable,
    "DEADLINE_EXCEEDED": TimedOut,
    "CANCELLED": StreamCancelled,
}
# gRPC's messages for a stream that a proxy reset because the server behind it went away
_RESET_MESSAGES = ("RST_STREAM", "Stream removed")
_LOCALLY_CANCELLED = "Locally cancelled"  # grpc.aio's message for a call that this client cancelled


def from_status(code: str, message: str, metadata: Iterable[tuple[str, str | bytes]] | None = None) -> MynahError:
    """Returns the error for the name of a status, its message and its trailing metadata.

    A status without Mynah's details comes from gRPC or a proxy. Its code gives the class and the reason, and it is
    retryable only for UNAVAILABLE or a lost connection. A server that dies can end a call with a bare CANCELLED, which
    counts as a lost connection unless this client cancelled the call.
    """
    raw = next((value for key, value in metadata or () if key == DETAILS_KEY), b"")
    error_class = _CLASSES.get(code, ServerError)
    details = _read_details(raw) if isinstance(raw, bytes) and raw else None
    if details is None and _is_lost_connection(code, message):
        return Unavailable(message, reason="CONNECTION_LOST", code=code, retry_after_s=0.1)
    if details is None:
        return error_class(message, code=code, retry_after_s=1.0 if code == "UNAVAILABLE" else None)
    reason, retry_after_s, info = details
    shown = {name: info.get(name, "") for name in ("field", "value", "allowed")}
    return of_code(code, message, reason=reason, retry_after_s=retry_after_s, **shown)


def of_code(code: str, message: str, **details: Any) -> MynahError:
    """Returns the error for the name of a status. `details` are the other arguments of MynahError."""
    return _CLASSES.get(code, ServerError)(message, code=code, **details)


def _is_lost_connection(code: str, message: str) -> bool:
    if code == "CANCELLED":
        return not message.startswith(_LOCALLY_CANCELLED)
    return code in ("UNKNOWN", "INTERNAL") and any(words in message for words in _RESET_MESSAGES)


def _read_details(raw: bytes) -> tuple[str, float | None, dict[str, str]] | None:
    """Returns reason, seconds before a retry and metadata, or None if the details are not Mynah's."""
    from google.protobuf.message import DecodeError
    from google.rpc import error_details_pb2, status_pb2

    status, error_info, retry = status_pb2.Status(), error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    request = error_details_pb2.BadRequest()
    wait_s: float | None = None
    try:
        status.ParseFromString(raw)
        for detail in status.details:
            detail.Unpack(error_info)
            detail.Unpack(request)
            if detail.Unpack(retry):
                wait_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    except DecodeError:
        return None
    if error_info.domain != DOMAIN:
        return None
    info = dict(error_info.metadata)
    if request.field_violations:
        info.setdefault("field", request.field_violations[0].field)
    return error_info.reason, wait_s, info
