"""Whether an engine works on what it is given, and who wants to be told when that changes."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Health:
    """Healthy until told otherwise. From any thread; listeners are called on the thread that brings the news."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._healthy = True
        self._listeners: list[Callable[[bool], None]] = []

    @property
    def healthy(self) -> bool:
        return self._healthy

    def set(self, healthy: bool) -> None:
        """Tell the listeners if this is news."""
        with self._lock:
            if healthy == self._healthy:
                return
            self._healthy = healthy
            listeners = list(self._listeners)
        for listener in listeners:
            listener(healthy)

    def watch(self, listener: Callable[[bool], None]) -> None:
        """Call `listener` with every change from now on."""
        with self._lock:
            self._listeners.append(listener)
