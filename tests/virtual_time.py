"""An asyncio event loop whose clock jumps: sleeping costs nothing and timing in tests is exact."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpingSelector(selectors.SelectSelector):
    """Instead of waiting for a timer, advances the clock to it. Real I/O that is ready still comes first."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            # nothing is scheduled: only another thread can wake us, so wait for it in real time
            return super().select(5.0) or self._stuck()
        ready = super().select(0)
        if not ready:
            self.now_s += max(timeout, 0.0)
        return ready

    def _stuck(self) -> list[tuple[selectors.SelectorKey, int]]:
        raise RuntimeError("deadlock: nothing is scheduled and no thread has answered within 5 s")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`loop.time()` starts at 0 and moves only when every task waits for a timer."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s


def virtual_time(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run to completion on a fresh virtual clock."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(coroutine)
