"""The client's tree of errors, and how a gRPC status with its details becomes one of them.

Knows the contract's conventions (ErrorInfo, RetryInfo); opens no connection. gRPC itself is never imported here.
"""

from __future__ import annotations

from collections.abc import Iterable

DETAILS_KEY = "grpc-status-details-bin"
DOMAIN = "mynah"


class MynahError(Exception):
    """Base of everything this client raises about a call.

    `reason` is a stable UPPER_SNAKE word for programs, `code` the gRPC status' name. `retryable` says whether the
    same call may succeed later without a change, `retry_after_s` what the server suggests to wait. `field`, `value`
    and `allowed` say what was wrong with the request; empty where that does not apply.
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
    """The request can never work as it is; see `field`, `value` and `allowed`."""


class NotFound(MynahError):
    """No such voice."""


class NotAllowed(MynahError):
    """The server asks for an API key that it knows."""


class AlreadyExists(MynahError):
    """The chosen voice id is taken."""


class WrongState(MynahError):
    """The request came out of order, or its object is in a state that does not allow it."""


class ServerBusy(MynahError):
    """The server has no room: for another stream (retryable), or for more on this one."""


class Unavailable(MynahError):
    """The server is not there, not ready, or about to stop."""


class TimedOut(MynahError):
    """A deadline or one of the stream's time limits passed."""


class StreamCancelled(MynahError):
    """The call was ended by its own client, or cut off."""


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
# how gRPC words a stream that a proxy cut off when the server behind it went away; no server of ours was asked
_BROKEN = ("RST_STREAM", "Stream removed")
_BY_THIS_CLIENT = "Locally cancelled"  # how grpc.aio words a call that its own side cancelled


def from_status(code: str, message: str, metadata: Iterable[tuple[str, str | bytes]] | None = None) -> MynahError:
    """The error for a status name, its message and its trailing metadata.

    A status without our details (a proxy's, gRPC's own) becomes the class of its code with the code as reason; of
    those only UNAVAILABLE and a stream that was cut off are retryable. A server that dies can end a call with a bare
    CANCELLED, which is being cut off unless this client cancelled.
    """
    details = next((value for key, value in metadata or () if key == DETAILS_KEY), b"")
    kind = _CLASSES.get(code, ServerError)
    given = _read_details(details) if isinstance(details, bytes) and details else None
    if given is None and _was_cut_off(code, message):
        return Unavailable(message, reason="CONNECTION_LOST", code=code, retry_after_s=0.1)
    if given is None:
        return kind(message, code=code, retry_after_s=1.0 if code == "UNAVAILABLE" else None)
    reason, retry_after_s, about = given
    return kind(
        message,
        reason=reason,
        code=code,
        retry_after_s=retry_after_s,
        field=about.get("field", ""),
        value=about.get("value", ""),
        allowed=about.get("allowed", ""),
    )


def _was_cut_off(code: str, message: str) -> bool:
    if code == "CANCELLED":
        return not message.startswith(_BY_THIS_CLIENT)
    return code in ("UNKNOWN", "INTERNAL") and any(word in message for word in _BROKEN)


def _read_details(raw: bytes) -> tuple[str, float | None, dict[str, str]] | None:
    """Reason, wait before a retry, and what was wrong; None when the details are not ours."""
    from google.protobuf.message import DecodeError
    from google.rpc import error_details_pb2, status_pb2

    status, info, retry = status_pb2.Status(), error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    request = error_details_pb2.BadRequest()
    wait_s: float | None = None
    try:
        status.ParseFromString(raw)
        for detail in status.details:
            detail.Unpack(info)
            detail.Unpack(request)
            if detail.Unpack(retry):
                wait_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    except DecodeError:
        return None
    if info.domain != DOMAIN:
        return None
    about = dict(info.metadata)
    if request.field_violations:
        about.setdefault("field", request.field_violations[0].field)
    return info.reason, wait_s, about
