"""The health of an engine, with listeners for its changes."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Health:
    """A thread-safe flag, initially healthy. Listeners are called on the thread that changes it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._healthy = True
        self._listeners: list[Callable[[bool], None]] = []

    @property
    def healthy(self) -> bool:
        return self._healthy

    def set(self, healthy: bool) -> None:
        """Change the flag, and call the listeners if its value is new."""
        with self._lock:
            if healthy == self._healthy:
                return
            self._healthy = healthy
            listeners = list(self._listeners)
        for listener in listeners:
            listener(healthy)

    def watch(self, listener: Callable[[bool], None]) -> None:
        """Call `listener` with every later change."""
        with self._lock:
            self._listeners.append(listener)
