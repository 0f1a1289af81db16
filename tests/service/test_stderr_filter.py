"""What libraries write to stderr becomes safe lines of the log, at the end of the process and after a crash, too."""

from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from service.stderr_filter import copy, record_of, safe, start
from service.telemetry.logs import SafeHandler

ROOT = Path(__file__).parents[2]
CORE = "E1129 21:03:28.123456   12345 ssl_transport_security.cc:1884] Handshake failed: {text}"
PROGRAM = """
import ctypes, os, sys
from service import stderr_filter
stderr_filter.redirect()
os.write(2, {written!r})
{then}
"""


def run(written: bytes, then: str = "") -> tuple[int, str]:
    """The status and the log of a process that writes to descriptor 2."""
    program = PROGRAM.format(written=written, then=then)
    # it returns at the end of stderr, which the filter holds: when both processes have ended, however long that takes
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, cwd=ROOT, check=False)
    return done.returncode, done.stderr.decode("ascii")


def test_lines_are_whole_escaped_and_keep_their_severity():
    status, log = run(CORE.format(text="x\x1b[2J\udcff").encode(errors="surrogateescape") + b"\nno end")
    assert status == 0
    first, second = log.splitlines()
    assert " ERROR grpc.core ssl_transport_security.cc:1884: Handshake failed: x<1 bytes>[2J<1 bytes>" in first
    assert second.endswith(" WARNING stderr no end")


KILLED = "import os; os.write(2, {written!r}); os.kill(os.getpid(), 9)"


@pytest.mark.parametrize("runs_already", [False, True], ids=["before the filter runs", "while the filter waits"])
def test_what_a_killed_process_has_written_is_passed_on(runs_already: bool):
    """A process is killed at one of the two ends of what can happen while its filter starts."""
    (reading, writing), (log, real) = os.pipe(), os.pipe()
    with open(log, "rb") as lines:
        if runs_already:
            os.write(writing, b"it runs\n")
            passing = start(reading, real)
            assert lines.readline().endswith(b" WARNING stderr it runs\n")
        killed = subprocess.run(
            [sys.executable, "-c", KILLED.format(written=b"first\nno end")], stderr=writing, check=False
        )
        assert killed.returncode == -signal.SIGKILL
        os.close(writing)
        if not runs_already:
            passing = start(reading, real)
        os.close(reading)
        os.close(real)
        rest = [line.partition(b" WARNING stderr ")[2] for line in lines]
        assert passing.wait() == 0
    assert rest == [b"first\n", b"no end\n"]


@pytest.mark.parametrize(
    ("then", "status", "last"),
    [
        ("os._exit(3)", 3, ""),
        ("os.abort()", -signal.SIGABRT, "Fatal Python error: Aborted"),
        ("ctypes.string_at(0)", -signal.SIGSEGV, "Fatal Python error: Segmentation fault"),
        ("raise ValueError('own')", 1, "ValueError: own"),
        ("os.kill(os.getpid(), 9)", -signal.SIGKILL, ""),
    ],
)
def test_nothing_is_lost_at_the_end(then: str, status: int, last: str):
    lines = b"".join(b"line %d\n" % number for number in range(50))
    ended, log = run(lines + b"terminate called", then)
    assert ended == status, log
    written = [line.partition(" WARNING stderr ")[2] for line in log.splitlines() if " WARNING stderr " in line]
    assert written == [*(f"line {number}" for number in range(50)), "terminate called"], log
    assert last in log


@pytest.mark.parametrize(
    "line",
    [
        b"Illegal header: authorization: Bearer xylophone",
        b"Authorization\xff=xylophone\xfe",
        b"x-api-key: xylophone",
        b"key:'authorization' value:'xylophone\xff'",
        b"cookie=xylophone; other=1",
    ],
)
def test_secrets_are_left_out(line: bytes):
    assert "xylophone" not in safe(line)


def test_a_flood_is_bounded_and_counted():
    written = io.StringIO()
    handler = SafeHandler(written, lambda: 0.0, burst_bytes=30_000)
    lines = [CORE.format(text="y" * 200).encode() + b"\n"] * 5000 + [b"z" * 100_000]
    copy(io.BytesIO(b"".join(lines)), handler)
    assert 10_000 < len(written.getvalue()) < 60_000


def test_the_place_in_the_source_is_the_kind():
    """So a flood of one kind leaves the others their lines."""
    first, second = (record_of(safe(CORE.replace("1884", line).format(text=line).encode())) for line in ("1", "2"))
    assert first.msg != second.msg
    assert first.levelno == logging.ERROR
