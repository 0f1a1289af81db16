"""The slow tests, in tests/slow.txt: which they are, and how long each takes.

`make check` leaves them out, and `make test` starts with the longest, so that no worker is left with one at the end.
`make test ARGS=--record-slow` writes the file anew.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

FILE = Path(__file__).with_name("slow.txt")
SLOW_S = 0.5  # a test function's time, all its parameters together; or a file's shared setup


def read() -> dict[str, float]:
    """Seconds by what is slow: a file, for its shared setup, or FILE::FUNCTION."""
    entries = (line.split(maxsplit=1) for line in FILE.read_text().splitlines())
    return {name: float(seconds) for seconds, name in entries}


def name_of(nodeid: str) -> str:
    """FILE::FUNCTION of a test's id, which may name a class and parameters, too."""
    file, _, rest = nodeid.partition("::")
    return f"{file}::{rest.partition('[')[0]}"


def is_slow(nodeid: str, slow: dict[str, float]) -> bool:
    """Whether a test, or the shared setup of its file, is slow."""
    return name_of(nodeid) in slow or nodeid.partition("::")[0] in slow


class Recorder:
    """Adds up what the tests of a run take and writes tests/slow.txt at its end; under xdist in the controller."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self._seconds[name_of(report.nodeid)] += report.duration
        else:  # what a file's tests share is made once, so its time is that of one test
            file = report.nodeid.partition("::")[0]
            self._seconds[file] = max(self._seconds[file], report.duration)

    def pytest_sessionfinish(self) -> None:
        FILE.write_text(table(self._seconds.items()))


def table(seconds: Iterable[tuple[str, float]]) -> str:
    slow = sorted((pair for pair in seconds if pair[1] >= SLOW_S), key=lambda pair: -pair[1])
    return "".join(f"{taken:.1f} {name}\n" for name, taken in slow)
