"""The watch over calls of a device: one that does not come back within its time means that the device hangs.

Nothing can end such a call but the end of its process.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from engines.cuda_faults import DeviceLost

LIMIT_S = 60.0  # the slowest calls, first ones of a size among them, take a few seconds
_CHECKS_PER_LIMIT = 4


class DeviceWatch:
    """Calls that run now, and since when. From any thread.

    on_hang   called once, on the watch's thread, when a call takes longer than `limit_s`
    clock     seconds
    """

    def __init__(
        self,
        on_hang: Callable[[DeviceLost], None],
        *,
        limit_s: float = LIMIT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_hang, self._limit_s, self._clock = on_hang, limit_s, clock
        self._lock = threading.Lock()
        self._running: dict[object, tuple[str, float]] = {}
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def call(self, name: str) -> Iterator[None]:
        """Watch what runs in this context."""
        key = object()
        with self._lock:
            self._running[key] = name, self._clock()
        try:
            yield
        finally:
            with self._lock:
                del self._running[key]

    def check(self) -> bool:
        """Report a call that hangs. Returns whether there is one."""
        now_s = self._clock()
        with self._lock:
            hanging = [(name, now_s - since_s) for name, since_s in self._running.values()]
        for name, for_s in hanging:
            if for_s > self._limit_s:
                self._on_hang(DeviceLost(f"The GPU hangs: {name} has not come back for {for_s:.0f} s."))
                return True
        return False

    def start(self) -> None:
        """Check from a thread until `close`."""
        self._thread = threading.Thread(target=self._run, name="device-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop checking. Idempotent."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(self._limit_s / _CHECKS_PER_LIMIT):
            if self.check():
                return
