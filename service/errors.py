"""The service's errors: states and limits. They map one to one to gRPC's codes of the same name.

A value that can never work is `engines.errors.InvalidInput`, here and in the engines.
"""

from __future__ import annotations

import errno

from engines.errors import shown


class RequestError(Exception):
    """Base. `reason` is the contract's UPPER_SNAKE word; `retry_after_s` is set if the call may succeed later."""

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        field: str = "",
        value: object = "",
        allowed: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.field = field
        self.value = shown(value)
        self.allowed = allowed
        self.retry_after_s = retry_after_s


class NotFound(RequestError):
    """The named thing does not exist."""


class AlreadyExists(RequestError):
    """The chosen id is in use."""


class FailedPrecondition(RequestError):
    """The present state does not allow this message or call."""


class ResourceExhausted(RequestError):
    """A limit of the server or of one stream is reached."""


class Unauthenticated(RequestError):
    """The caller has no valid API key."""


class Unavailable(RequestError):
    """The server is warming up or draining."""


class DataLoss(RequestError):
    """What the server has stored is damaged."""


class ClientGone(Exception):
    """The client disconnected while something was being sent to it."""


class DeadlineExceeded(RequestError):
    """The client sent or read nothing for longer than a timeout allows."""


_STORAGE_RETRY_AFTER_S = 10.0


def file_problem(error: OSError) -> str:
    """What is wrong with a file that was named at the start, as a sentence."""
    if error.filename is None or not error.strerror:
        return str(error)
    return f"{error.filename} cannot be used: {error.strerror}; name a file or folder that the server can open."


def disk_error(error: OSError) -> RequestError | None:
    """The error for a client if the server's disk is full or read-only; None for any other OSError."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        message = "The server's storage is full; retry later, or ask its operator to free space."
        return ResourceExhausted("STORAGE_FULL", message, retry_after_s=_STORAGE_RETRY_AFTER_S)
    if error.errno == errno.EROFS:
        message = "The server's storage is read-only at present; retry later, or ask its operator to repair it."
        return Unavailable("STORAGE_READ_ONLY", message, retry_after_s=_STORAGE_RETRY_AFTER_S)
    return None


def storage_error(error: OSError) -> RequestError:
    """The error for a client if the server could not read or write what it stores."""
    message = "The server could not reach its storage; retry later, or ask its operator to look at the log."
    return disk_error(error) or Unavailable("STORAGE_FAILED", message, retry_after_s=_STORAGE_RETRY_AFTER_S)
