"""Failures: what a client receives for an error, and what the log gets. The surfaces turn them into their own words.

Messages and values may quote a client's own text back to it; the log gets neither.
"""

from __future__ import annotations

import errno
import logging
import traceback
from dataclasses import dataclass
from enum import Enum

from google.protobuf.message import DecodeError

from engines.errors import CheckpointError, EngineBusy, EngineError, EngineFailure, InvalidInput, TimeLimitExceeded
from mynah.client.errors import MynahError, of_code
from service import errors
from service.telemetry import metrics
from service.telemetry.logs import Lines

log = logging.getLogger("mynah.service")

_ENGINE_RETRY_AFTER_S = 1.0


class Code(Enum):
    """The kind of a failure, by the names and numbers of google.rpc.Code."""

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_CODES: dict[type[Exception], Code] = {
    InvalidInput: Code.INVALID_ARGUMENT,
    EngineBusy: Code.RESOURCE_EXHAUSTED,
    EngineFailure: Code.INTERNAL,
    TimeLimitExceeded: Code.UNAVAILABLE,
    CheckpointError: Code.FAILED_PRECONDITION,
    errors.NotFound: Code.NOT_FOUND,
    errors.AlreadyExists: Code.ALREADY_EXISTS,
    errors.FailedPrecondition: Code.FAILED_PRECONDITION,
    errors.ResourceExhausted: Code.RESOURCE_EXHAUSTED,
    errors.Unauthenticated: Code.UNAUTHENTICATED,
    errors.Unavailable: Code.UNAVAILABLE,
    errors.DeadlineExceeded: Code.DEADLINE_EXCEEDED,
    errors.DataLoss: Code.DATA_LOSS,
}


_HEAD_CHARS, _TAIL_CHARS = 300, 180  # of a text in a failure


@dataclass(frozen=True)
class Failure:
    """A failure to be sent to a client. `retry_after_s` is None if retrying the same call is pointless."""

    code: Code
    reason: str
    message: str
    field: str = ""
    value: str = ""
    allowed: str = ""
    retry_after_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("message", "value", "allowed"):
            object.__setattr__(self, name, _short(getattr(self, name)))


def _short(text: str) -> str:
    """Returns the text without its middle if it is long: a client may send a megabyte as a voice's name.

    Errors travel in headers of at most 16 KiB, several times and, beyond ASCII, in three bytes for each of UTF-8.
    """
    return text if len(text) <= _HEAD_CHARS + _TAIL_CHARS else f"{text[:_HEAD_CHARS]} ... {text[-_TAIL_CHARS:]}"


def failure_of(error: BaseException) -> Failure:
    """The failure for any exception. An unexpected one becomes INTERNAL, and its own words are not repeated."""
    if isinstance(error, DecodeError):
        message = "The message cannot be decoded as the contract's message for this method."
        return Failure(Code.INVALID_ARGUMENT, "MESSAGE_INVALID", message, field="message")
    if isinstance(error, OSError):
        error = errors.disk_error(error) or error
    code = next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), None)
    if code is None:
        return Failure(Code.INTERNAL, "INTERNAL", "The server failed on this call; its log says where.")
    if isinstance(error, InvalidInput):
        return Failure(code, error.reason, str(error), error.field, error.value, error.allowed)
    if isinstance(error, errors.RequestError):
        return Failure(code, error.reason, str(error), error.field, error.value, error.allowed, error.retry_after_s)
    assert isinstance(error, EngineError)
    return Failure(code, error.reason, str(error), retry_after_s=_ENGINE_RETRY_AFTER_S if error.retryable else None)


def error_of(error: BaseException) -> MynahError:
    """The error that the client raises for what `failure_of` gives it."""
    failure = failure_of(error)
    return of_code(
        failure.code.name,
        failure.message,
        reason=failure.reason,
        retry_after_s=failure.retry_after_s,
        field=failure.field,
        value=failure.value,
        allowed=failure.allowed,
    )


def root_cause(error: Exception) -> Exception:
    """The failure that ended a task group: the first of its exceptions."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def log_failure(error: Exception, call: str) -> Failure | None:
    """Log an error and return the failure to send, or None if the client has disconnected."""
    if isinstance(error, errors.ClientGone):
        log.info("%s: the client disconnected", call)
        return None
    failure = failure_of(error)
    metrics.ERRORS.labels(failure.reason).inc()
    if failure.code is Code.INTERNAL:
        log.error("%s: %s%s", call, failure.reason, Lines(_tracebacks(error)))
    elif failure.reason in metrics.STORAGE_REASONS:
        metrics.STORAGE_ERRORS.labels(failure.reason).inc()
        log.error("%s: %s%s", call, failure.reason, _system_error(error))
    else:
        # a server that stops says once how many streams it ended
        level = logging.DEBUG if failure.reason == "DRAINING" else logging.INFO
        log.log(level, "%s: %s %s %s", call, failure.code.name, failure.reason, failure.field)
    return failure


def _tracebacks(error: BaseException) -> str:
    """Type and traceback of an exception and of its causes. Their messages may hold text and are left out."""
    own = f"{type(error).__name__}{_errno(error)}\n" + "".join(traceback.format_tb(error.__traceback__))
    cause = error.__cause__ or error.__context__
    return own if cause is None else f"{own}because of {_tracebacks(cause)}"


def _system_error(error: BaseException) -> str:
    """The first system error among an exception and its causes, without its words."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return f" because of {type(cause).__name__}{_errno(cause)}"
        cause = cause.__cause__ or cause.__context__
    return ""


def _errno(error: BaseException) -> str:
    """The number and the name of a system error."""
    if not isinstance(error, OSError) or error.errno is None:
        return ""
    return f" errno {error.errno} {errno.errorcode.get(error.errno, '')}".rstrip()
