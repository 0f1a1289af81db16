"""The engines' one tree of errors: what was wrong, what is allowed, and whether to retry.

Knows nothing of RPC or HTTP; the service maps each class to a status exactly once.
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of everything an engine raises on purpose.

    `reason` is a stable UPPER_SNAKE identifier for programs; the message is for people.
    `retryable` says whether the same call may succeed later without a change by the caller.
    """

    reason: str = "ENGINE_ERROR"
    retryable: bool = False


class InvalidInput(EngineError):
    """The caller gave something that can never work: names the field, its value and what is allowed."""

    reason: str = "INVALID_INPUT"

    def __init__(self, field: str, value: object, allowed: str, reason: str | None = None) -> None:
        """`reason` narrows the class's own, e.g. "TEXT_TOO_LONG"."""
        shown = repr(value)
        if len(shown) > 80:
            shown = shown[:77] + "..."
        super().__init__(f"{field} = {shown} is not allowed; allowed: {allowed}")
        self.field = field
        self.value = shown
        self.allowed = allowed
        self.reason = reason or self.reason

    def named(self, field: str) -> InvalidInput:
        """The same refusal of a field that its caller knows by another name."""
        renamed = InvalidInput(field, "", self.allowed, self.reason)
        renamed.value = self.value
        renamed.args = (str(self).replace(self.field, field, 1),)
        return renamed


class CheckpointError(EngineError):
    """Weights are missing, of the wrong shape, or not readable; raised before anything is served."""

    reason: str = "CHECKPOINT_INVALID"


class EngineBusy(EngineError):
    """No capacity for another stream right now."""

    reason: str = "ENGINE_BUSY"
    retryable: bool = True


class EngineFailure(EngineError):
    """The engine failed while working on a stream; the stream is over, a new one may succeed."""

    reason: str = "ENGINE_FAILURE"
    retryable: bool = True
