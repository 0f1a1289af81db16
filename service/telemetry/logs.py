"""The server's log lines: one line per event, in printable ASCII, at most about 1 MB a minute.

What a client sent cannot forge a line, move a terminal's cursor or fill a disk, whichever library logs it.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import TextIO

_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_OWN = ("mynah", "engines", "service")  # loggers whose arguments are known to hold no secrets
_MAX_ARG_CHARS = 300
_MAX_LINES = 200
_INDENT = "    "

_BURST_LINES, _LINES_PER_S = 100.0, 10.0  # of one kind
_BURST_BYTES, _BYTES_PER_S = 200_000.0, 4_000.0  # twice: for warnings and above, and for what is below
_MAX_KINDS = 1000


class Lines(str):
    """An argument that keeps its lines, such as a traceback. Each is escaped, and indented below the first line."""

    __slots__ = ()


def configure(level: str, stream: TextIO | None = None) -> None:
    """Sends all loggers' lines to `stream`, stderr by default."""
    logging.basicConfig(level=level.upper(), handlers=[SafeHandler(stream or sys.stderr)], force=True)


def escaped(text: str, max_chars: int = _MAX_ARG_CHARS) -> str:
    """The text in printable ASCII, with backslash escapes; the middle of a long one is left out."""
    text = _shortened(text, max_chars)
    if text.isascii() and text.isprintable():
        return text
    return _shortened("".join(char if " " <= char <= "~" else _escape(char) for char in text), max_chars)


def _shortened(text: str, max_chars: int) -> str:
    half = max_chars // 2
    return text if len(text) <= max_chars else f"{text[:half]}...({len(text) - 2 * half} chars)...{text[-half:]}"


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


class SafeFormatter(logging.Formatter):
    """Escapes the arguments of a record, and the whole of a message that was formatted before."""

    def format(self, record: logging.LogRecord) -> str:
        safe = logging.makeLogRecord(record.__dict__)
        foreign = record.name.partition(".")[0] not in _OWN
        if isinstance(record.args, Mapping):
            safe.args = {key: _safe(arg, foreign) for key, arg in record.args.items()}
        elif record.args:
            safe.args = tuple(_safe(arg, foreign) for arg in record.args)
        else:
            safe.msg = escaped(str(record.msg), 10 * _MAX_ARG_CHARS)
        safe.exc_text = None  # another handler's, unescaped
        if foreign and isinstance(record.exc_info, tuple) and record.exc_info[1] is not None:
            safe.exc_text = _indented(_without_messages(record.exc_info[1]))
        return super().format(safe)

    def formatException(self, ei: object) -> str:
        return _indented(super().formatException(ei))  # type: ignore[arg-type]

    def formatStack(self, stack_info: str) -> str:
        return _indented(stack_info)


def _without_messages(error: BaseException) -> str:
    """Type and traceback of an exception and its causes. Libraries quote headers in their messages."""
    own = "".join(traceback.format_tb(error.__traceback__)) + type(error).__qualname__
    cause = error.__cause__ or error.__context__
    return own if cause is None else f"{_without_messages(cause)}\nled to:\n{own}"


class _Shown:
    """An argument that is shown by `%s` and `%r` alike."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text

    __repr__ = __str__


def _safe(arg: object, foreign: bool) -> object:
    if arg is None or isinstance(arg, int | float):
        return arg
    if isinstance(arg, Lines):
        return _Shown("\n" + _indented(arg))
    if foreign and isinstance(arg, bytes | bytearray | memoryview):
        return _Shown(f"<{len(arg)} bytes>")  # gRPC logs metadata that is not UTF-8, API keys included
    return _Shown(escaped(str(arg)))


def _indented(text: str) -> str:
    lines = text.splitlines()
    if len(lines) > _MAX_LINES:
        half = _MAX_LINES // 2
        lines = [*lines[:half], f"... {len(lines) - 2 * half} lines ...", *lines[-half:]]
    return "\n".join(_INDENT + escaped(line) for line in lines)


class _Bucket:
    """A token bucket."""

    def __init__(self, burst: float, per_s: float, now_s: float) -> None:
        self._burst, self._per_s = burst, per_s
        self._tokens, self._noted_s = burst, now_s

    def take(self, tokens: float, now_s: float) -> bool:
        """Takes the tokens if there are any left; the last of them may go below zero."""
        self._tokens = min(self._burst, self._tokens + (now_s - self._noted_s) * self._per_s)
        self._noted_s = now_s
        if self._tokens <= 0:
            return False
        self._tokens -= tokens
        return True


class RateLimit:
    """Leaves out lines of a kind that comes too often, and all lines beyond a number of bytes.

    A kind is a logger and its message without arguments.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        burst_bytes: float = _BURST_BYTES,
        bytes_per_s: float = _BYTES_PER_S,
    ) -> None:
        """The bytes are allowed twice: for warnings and above, and for what is below."""
        self._clock = clock
        self._kinds: dict[tuple[str, str], _Bucket] = {}
        now_s = clock()
        self._severe, self._other = (_Bucket(burst_bytes, bytes_per_s, now_s) for _ in range(2))

    def allows(self, record: logging.LogRecord) -> bool:
        """Counts a line of this record's kind."""
        kind = (record.name, str(record.msg)[:_MAX_ARG_CHARS])
        if kind not in self._kinds and len(self._kinds) >= _MAX_KINDS:
            self._kinds.clear()
        now_s = self._clock()
        return self._kinds.setdefault(kind, _Bucket(_BURST_LINES, _LINES_PER_S, now_s)).take(1, now_s)

    def allows_bytes(self, size_bytes: int, level: int) -> bool:
        """Counts a line's bytes. Warnings and errors have a budget of their own."""
        bucket = self._severe if level >= logging.WARNING else self._other
        return bucket.take(size_bytes, self._clock())


class SafeHandler(logging.StreamHandler[TextIO]):
    """Writes safe lines within RateLimit. The next line that passes says how many were left out."""

    def __init__(
        self,
        stream: TextIO,
        clock: Callable[[], float] = time.monotonic,
        burst_bytes: float = _BURST_BYTES,
        bytes_per_s: float = _BYTES_PER_S,
    ) -> None:
        super().__init__(stream)
        self.setFormatter(SafeFormatter(_FORMAT))
        self._limit = RateLimit(clock, burst_bytes, bytes_per_s)
        self._left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._emit(record)
        except Exception:
            self.handleError(record)

    def _emit(self, record: logging.LogRecord) -> None:
        line = self.format(record) + self.terminator if self._limit.allows(record) else None
        if line is None or not self._limit.allows_bytes(len(line), record.levelno):
            self._left_out += 1
            return
        if self._left_out:
            self.stream.write(f"{self._left_out} log lines were left out: too many of a kind, or too long\n")
            self._left_out = 0
        self.stream.write(line)
        self.flush()
