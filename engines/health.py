"""The health of an engine, with listeners for its changes and for the loss of its device."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from engines.cuda_faults import DeviceLost, is_sticky

_log = logging.getLogger(__name__)


class Health:
    """A thread-safe flag, initially healthy. Listeners are called on the thread that changes it.

    An engine whose device is lost is unhealthy for good: its process should end, so that a new one can use the device.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._healthy = True
        self._listeners: list[Callable[[bool], None]] = []
        self._lost: DeviceLost | None = None
        self._loss_listeners: list[Callable[[DeviceLost], None]] = []

    @property
    def healthy(self) -> bool:
        return self._healthy

    def set(self, healthy: bool) -> None:
        """Change the flag, and call the listeners if its value is new."""
        with self._lock:
            healthy = healthy and self._lost is None
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

    @property
    def lost(self) -> DeviceLost | None:
        """Why the device is lost, if it is."""
        return self._lost

    def report(self, error: BaseException) -> None:
        """Report an exception of the device's work: if no later work can succeed, the device is lost."""
        if isinstance(error, DeviceLost):
            self.lose(error)
        elif is_sticky(error):
            self.lose(DeviceLost(f"The GPU failed, and this process cannot use it any more: {error}"))

    def lose(self, error: DeviceLost) -> None:
        """Mark the device as lost. The first call counts."""
        with self._lock:
            if self._lost is not None:
                return
            self._lost = error
            listeners = list(self._loss_listeners)
        _log.critical("%s", error)
        self.set(False)
        for listener in listeners:
            listener(error)

    def watch_loss(self, listener: Callable[[DeviceLost], None]) -> None:
        """Call `listener` once when the device is lost, at once if it is already."""
        with self._lock:
            if self._lost is None:
                self._loss_listeners.append(listener)
                return
        listener(self._lost)
