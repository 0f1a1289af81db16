"""The end of the process: its signals, and its end by force where an orderly end takes too long."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from service import stderr_filter

log = logging.getLogger("mynah.service")

FORCED_EXIT = 3  # exit status if a thread or the event loop did not end
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def force_exit(problem: str) -> NoReturn:
    """End the process now, from any thread, whatever its other threads do."""
    log.critical("%s The process ends with status %d.", problem, FORCED_EXIT)
    with suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
        stderr_filter.restore()
    os._exit(FORCED_EXIT)


class Signals:
    """SIGTERM and SIGINT, which a thread of its own receives: a hung event loop does not keep the process.

    `received` gets each. From each signal on the process has `limit_s` to end; then `leave` is called.
    """

    def __init__(self, limit_s: Callable[[int], float], leave: Callable[[str], None] = force_exit) -> None:
        """`limit_s` is given how many signals have arrived. To be called on the main thread's event loop."""
        self.received: asyncio.Queue[signal.Signals] = asyncio.Queue()
        self._limit_s, self._leave = limit_s, leave
        self._loop = asyncio.get_running_loop()
        self._count = 0
        self._reading, writing = socket.socketpair()
        writing.setblocking(False)
        # the C handler writes the number at once, while Python's handlers wait for the main thread
        signal.set_wakeup_fd(writing.detach(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)
        threading.Thread(target=self._receive, name="signals", daemon=True).start()

    def _receive(self) -> None:
        while data := self._reading.recv(64):
            for number in data:
                if number in _SIGNALS:
                    self._arrived(signal.Signals(number))

    def _arrived(self, number: signal.Signals) -> None:
        self._count += 1
        limit_s = self._limit_s(self._count)
        problem = f"The server did not end within {limit_s:g} s of a signal."
        timer = threading.Timer(limit_s, self._leave, [problem])
        timer.name, timer.daemon = "end-by-force", True
        timer.start()
        with suppress(RuntimeError):  # the loop is closed: the process is about to end
            self._loop.call_soon_threadsafe(self.received.put_nowait, number)
