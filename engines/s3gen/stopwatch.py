"""A stopwatch that sums up wall time."""

from __future__ import annotations

import time


class Stopwatch:
    """Runs inside `with`; `total_s` is the sum. For one thread at a time."""

    def __init__(self) -> None:
        self.total_s = 0.0

    def __enter__(self) -> None:
        self._began_s = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.total_s += time.perf_counter() - self._began_s
