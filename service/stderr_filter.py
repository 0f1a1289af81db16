"""The process that reads what libraries write to the server's stderr, and writes it to the log as safe lines.

gRPC's core and other C libraries write to descriptor 2, past Python's logging. `redirect` gives them a pipe instead. A
process reads it, and not a thread: it needs no lock of the interpreter that a library may hold while it writes, and it
still passes on what a process wrote that has crashed. Python's own stderr and `faulthandler` keep the real one.
"""

from __future__ import annotations

import atexit
import faulthandler
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from service.telemetry.logs import SafeHandler

_END_TIMEOUT_S = 2.0  # for the last lines at the end of the process
_MAX_LINE_BYTES = 8 * 1024  # of a line without an end
_BURST_BYTES, _BYTES_PER_S = 30_000.0, 400.0  # beside the server's own lines, together under 1 MB a minute
_LEVELS = {"I": logging.INFO, "W": logging.WARNING, "E": logging.ERROR, "F": logging.CRITICAL}
# Abseil's prefix: severity, date, time, thread, FILE:LINE]
_ABSEIL = re.compile(r"([IWEF])\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ ([\w.-]+:\d+)\] (.*)", re.DOTALL)
_SECRET = re.compile(r"(authorization|bearer|api[-_ ]?key|cookie|password|token\b)(.*)", re.IGNORECASE | re.DOTALL)
_BYTES = re.compile(rb"[^\t\x20-\x7e]+")


def redirect(log_format: str = "text") -> None:
    """Gives libraries a pipe to the filter in place of stderr. To be called once, before there are other threads."""
    real = os.dup(2)
    reading, writing = os.pipe()
    process = start(reading, real, log_format)
    os.close(reading)
    os.dup2(writing, 2)
    os.close(writing)
    sys.stderr = os.fdopen(real, "w", buffering=1, errors="backslashreplace", closefd=False)
    faulthandler.enable(real)

    def give_back() -> None:
        with suppress(OSError):
            os.dup2(real, 2)
        with suppress(subprocess.TimeoutExpired):  # a process that was started here may still hold the pipe
            process.wait(_END_TIMEOUT_S)

    _at_end.append(give_back)
    atexit.register(restore)


def start(reading: int, real: int, log_format: str = "text") -> subprocess.Popen[bytes]:
    """Starts the filter between two descriptors. It ends once all that can write to the pipe have ended."""
    # -E and -s: what a user's environment adds is of no use to it; it imports the standard library alone
    command = [sys.executable, "-E", "-s", "-c", _PROGRAM, str(Path(__file__).parents[1]), log_format]
    return subprocess.Popen(command, stdin=reading, stdout=subprocess.DEVNULL, stderr=real, start_new_session=True)


def restore() -> None:
    """Gives libraries the real stderr back, and waits for the lines that are on their way. For the process's end."""
    while _at_end:
        _at_end.pop()()


_at_end: list[Callable[[], None]] = []
_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from service.stderr_filter import main; main()"


def main() -> None:
    """Passes lines of stdin on to stderr until its end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with the server, after it
    handler = SafeHandler(sys.stderr, burst_bytes=_BURST_BYTES, bytes_per_s=_BYTES_PER_S, log_format=sys.argv[2])
    copy(sys.stdin.buffer, handler)


def copy(lines: BinaryIO, handler: logging.Handler) -> None:
    """Sends each line to the handler. One that is too long is cut into several."""
    while line := lines.readline(_MAX_LINE_BYTES):
        with suppress(OSError):  # the log's disk may be full; what writes to the pipe must not wait for it
            if text := safe(line):
                handler.handle(record_of(text))


def safe(line: bytes) -> str:
    """The line without bytes that are not ASCII and without what follows the name of a secret."""
    text = _BYTES.sub(lambda found: b"<%d bytes>" % len(found[0]), line.rstrip(b"\r\n")).decode("ascii")
    return _SECRET.sub(lambda found: f"{found[1]}<{len(found[2])} characters>" if found[2] else found[1], text)


def record_of(text: str) -> logging.LogRecord:
    """A log record of the line: gRPC's with its severity and its place in the source, others as they are."""
    if found := _ABSEIL.match(text):
        level, place, message = _LEVELS[found[1]], found[2], found[3]
        return logging.LogRecord("grpc.core", level, place, 0, f"{place}: %s", (message,), None)
    return logging.LogRecord("stderr", logging.WARNING, "", 0, "%s", (text,), None)
