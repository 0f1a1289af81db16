"""The server's log lines: one line per event, as text or JSON, in printable ASCII, at most about 1 MB a minute.

What a client sent cannot forge a line, move a terminal's cursor or fill a disk, whichever library logs it.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import TextIO

FORMATS = ("text", "json")
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


Field = str | int | float | bool | None


def configure(level: str, log_format: str = "text", stream: TextIO | None = None) -> None:
    """Sends all loggers' lines to `stream`, stderr by default.

    Libraries write from INFO on at most: at DEBUG gRPC has lines for each call, and some quote credentials.
    """
    least = logging.getLevelNamesMapping()[level.upper()]
    handlers = [SafeHandler(stream or sys.stderr, log_format=log_format)]
    logging.basicConfig(level=max(least, logging.INFO), handlers=handlers, force=True)
    for name in _OWN:
        logging.getLogger(name).setLevel(least)


def write_event(log: logging.Logger, message: str, fields: Mapping[str, Field], *, audit: bool = False) -> None:
    """Writes a line at INFO with named values: `message key=value ...` in text, a member for each in JSON.

    None is left out. The lines of an audit are never left out for their number: what they report must take longer
    than a line does.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    log.info(message, extra={"fields": given, "audit": audit})


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
    """Escapes the arguments of a record, and the whole of a message that was formatted before. Times are in UTC."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        safe = self._safe(record)
        named = [f" {name}={_in_text(value)}" for name, value in fields_of(record).items()]
        safe.msg, safe.args = safe.getMessage() + "".join(named), None
        return super().format(safe)

    def _safe(self, record: logging.LogRecord) -> logging.LogRecord:
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
        return safe

    def formatException(self, ei: object) -> str:
        return _indented(super().formatException(ei))  # type: ignore[arg-type]

    def formatStack(self, stack_info: str) -> str:
        return _indented(stack_info)


class JsonFormatter(SafeFormatter):
    """Makes a JSON object of a record. Its strings are escaped as in text: a terminal may show them decoded.

    `detail` has the lines below the first, such as a traceback's.
    """

    def format(self, record: logging.LogRecord) -> str:
        safe = self._safe(record)
        message, *details = safe.getMessage().split("\n", 1)
        if safe.exc_info or safe.exc_text:
            details.append(safe.exc_text or self.formatException(safe.exc_info))
        if safe.stack_info:
            details.append(self.formatStack(safe.stack_info))
        line: dict[str, Field] = {
            "time": self.formatTime(safe, self.datefmt),
            "level": safe.levelname,
            "logger": safe.name,
            "message": message,
        }
        line |= {name: _finite(value) for name, value in fields_of(record).items()}
        if details:
            line["detail"] = "\n".join(details)
        return json.dumps(line)


def json_line(logger: str, level: int, message: str) -> str:
    """The JSON object of a line that no logger writes."""
    return JsonFormatter().format(logging.LogRecord(logger, level, "", 0, "%s", (message,), None))


_FORMATTERS = {"text": SafeFormatter, "json": JsonFormatter}


def fields_of(record: logging.LogRecord) -> dict[str, Field]:
    """The named values of a line of `write_event`, escaped."""
    fields: dict[str, Field] = getattr(record, "fields", {})
    return {name: escaped(value) if isinstance(value, str) else value for name, value in fields.items()}


def _in_text(value: Field) -> str:
    if isinstance(value, str):
        return value if value and not set(value) & set(' "=') else json.dumps(value)
    return json.dumps(_finite(value))


def _finite(value: Field) -> Field:
    """JSON has no other numbers."""
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


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
        """Counts a line of this record's kind. Lines of an audit have no limit."""
        if getattr(record, "audit", False):
            return True
        kind = (record.name, str(record.msg)[:_MAX_ARG_CHARS])
        if kind not in self._kinds and len(self._kinds) >= _MAX_KINDS:
            self._kinds.clear()
        now_s = self._clock()
        return self._kinds.setdefault(kind, _Bucket(_BURST_LINES, _LINES_PER_S, now_s)).take(1, now_s)

    def allows_bytes(self, size_bytes: int, record: logging.LogRecord) -> bool:
        """Counts a line's bytes. Warnings and errors have a budget of their own, and lines of an audit no limit."""
        bucket = self._severe if record.levelno >= logging.WARNING else self._other
        return bucket.take(size_bytes, self._clock()) or getattr(record, "audit", False)


class SafeHandler(logging.StreamHandler[TextIO]):
    """Writes safe lines within RateLimit. The next line that passes says how many were left out."""

    def __init__(
        self,
        stream: TextIO,
        clock: Callable[[], float] = time.monotonic,
        burst_bytes: float = _BURST_BYTES,
        bytes_per_s: float = _BYTES_PER_S,
        *,
        log_format: str = "text",
    ) -> None:
        super().__init__(stream)
        self.setFormatter(_FORMATTERS[log_format](_FORMAT))
        self._limit = RateLimit(clock, burst_bytes, bytes_per_s)
        self._left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._emit(record)
        except Exception:
            self.handleError(record)

    def _emit(self, record: logging.LogRecord) -> None:
        line = self.format(record) + self.terminator if self._limit.allows(record) else None
        if line is None or not self._limit.allows_bytes(len(line), record):
            self._left_out += 1
            return
        if self._left_out:
            self.stream.write(self.format(_left_out(self._left_out)) + self.terminator)
            self._left_out = 0
        self.stream.write(line)
        self.flush()


def _left_out(count: int) -> logging.LogRecord:
    message = "%d log lines were left out: too many of a kind, or too long"
    return logging.LogRecord("mynah.service", logging.WARNING, "", 0, message, (count,), None)
