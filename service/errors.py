"""What the service itself refuses, beside the engines' errors. Knows nothing of gRPC or HTTP.

A value that can never work is `engines.errors.InvalidInput`, whoever finds it; here are the states and limits.
"""

from __future__ import annotations


class RequestError(Exception):
    """Base. `reason` is the contract's UPPER_SNAKE word; `retry_after_s` is set when the call may succeed later."""

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
        self.value = str(value)
        self.allowed = allowed
        self.retry_after_s = retry_after_s


class NotFound(RequestError):
    """There is no such thing."""


class AlreadyExists(RequestError):
    """The name is taken."""


class FailedPrecondition(RequestError):
    """A message or a call that the present state does not allow."""


class ResourceExhausted(RequestError):
    """A limit of the server, or of one stream, is reached."""


class Unauthenticated(RequestError):
    """The caller did not say who it is, or is not known."""


class Unavailable(RequestError):
    """Warming up, or about to stop."""


class ClientGone(Exception):
    """The client left while something was being sent to it; there is nobody to tell."""


class DeadlineExceeded(RequestError):
    """The client was silent, or did not read, for longer than it may."""
