"""The exceptions of the engines. Each says what was wrong, what is allowed, and whether a retry can succeed.

The service maps each class to a status of gRPC and HTTP.
"""

from __future__ import annotations


class EngineError(Exception):
    """The base class of an engine's exceptions.

    `reason` is a stable UPPER_SNAKE identifier for programs; the message is for people.
    `retryable` says whether the same call may succeed later.
    """

    reason: str = "ENGINE_ERROR"
    retryable: bool = False


class InvalidInput(EngineError):
    """An argument is invalid: names the field, its value and what is allowed."""

    reason: str = "INVALID_INPUT"

    def __init__(
        self, field: str, message: str, reason: str | None = None, *, value: object = "", allowed: str = ""
    ) -> None:
        """`message` is a whole sentence that names the field and says what is allowed.

        `reason` narrows the class's own, e.g. "TEXT_TOO_LONG". `value` and `allowed` repeat the refused value and the
        allowed ones for programs that show them in words of their own.
        """
        super().__init__(message)
        self.field = shown(field)
        self.value = shown(value)
        self.allowed = allowed
        self.reason = reason or self.reason

    def named(self, field: str) -> InvalidInput:
        """Returns the same error under another name of the field."""
        message = str(self).replace(self.field, field, 1)
        return InvalidInput(field, message, self.reason, value=self.value, allowed=self.allowed)


def unsupported(name: str, value: str, where: str, allowed: str) -> InvalidInput:
    """The error of an option's value that is not supported in combination with something else."""
    message = f"{name} is {value}, which {where} does not support; allowed here: {allowed}."
    return InvalidInput(name, message, f"{name.upper()}_UNSUPPORTED", value=repr(value), allowed=allowed)


_MAX_SHOWN_CHARS = 80  # of what a client sent; more would hide what the error says


def shown(value: object) -> str:
    """Returns a value as an error repeats it: as text, the end of a long one cut off."""
    text = str(value)
    return text if len(text) <= _MAX_SHOWN_CHARS else text[: _MAX_SHOWN_CHARS - 3] + "..."


def quoted(text: str) -> str:
    """Returns a name that a client gave as an error repeats it: in quotes, the end of a long one cut off."""
    return repr(text if len(text) <= _MAX_SHOWN_CHARS - 2 else text[: _MAX_SHOWN_CHARS - 5] + "...")


class CheckpointError(EngineError):
    """Weights are missing, unreadable or of the wrong shape."""

    reason: str = "CHECKPOINT_INVALID"


class EngineBusy(EngineError):
    """All streams are in use."""

    reason: str = "ENGINE_BUSY"
    retryable: bool = True


class TimeLimitExceeded(EngineError):
    """Blocking work, such as reading a voice's file, took longer than its time limit."""

    retryable: bool = True

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class EngineFailure(EngineError):
    """The engine failed while processing a stream. The stream has ended; a new one may succeed."""

    reason: str = "ENGINE_FAILURE"
    retryable: bool = True
