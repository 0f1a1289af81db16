"""The engine's blocking calls: which of them run, and how long the last ones took. A watchdog reads it.

It belongs to the process, as its metrics do.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager

_REMEMBERED_CALLS = 64  # of each stage


class CallLog:
    """Thread-safe. Calls are numbered; a number is never used twice."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._running: dict[int, str] = {}
        self._recent_s: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED_CALLS))
        self._ended = 0

    @contextmanager
    def calling(self, stage: str) -> Iterator[None]:
        """A call of this stage lasts as long as the block."""
        began_s = time.monotonic()
        with self._lock:
            number = next(self._numbers)
            self._running[number] = stage
        try:
            yield
        finally:
            with self._lock:
                del self._running[number]
                self._ended += 1
                self._recent_s[stage].append(time.monotonic() - began_s)

    def running(self) -> dict[int, str]:
        """The stages of the calls that have not returned, by number."""
        with self._lock:
            return dict(self._running)

    def longest_s(self) -> float:
        """The longest of the recent calls of all stages; 0 before the first."""
        with self._lock:
            return max((max(recent) for recent in self._recent_s.values()), default=0.0)

    @property
    def ended(self) -> int:
        """How many calls have returned."""
        return self._ended


ENGINE_CALLS = CallLog()
