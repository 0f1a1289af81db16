"""The handler of SIGINT and SIGTERM: one line on standard error, a quick end, and the signal's exit status.

It imports little, because a signal may come before the command's slow imports are done.
"""

from __future__ import annotations

import _thread
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

_MESSAGES = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
_STDERR = 2  # the descriptor: Python's file object may be in the middle of a write
_GRACE_S = 3.0  # for closing the file and the stream, which takes far less


class SignalHandler:
    """Handles the signals from its construction on. `status` is None, then 128 plus the number of the first signal.

    A signal that was ignored stays ignored: scripts start background jobs with SIGINT ignored on purpose.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        self._cancel: Callable[[], object] | None = None  # cancels the work in progress
        for number in _MESSAGES:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)

    async def run(self, work: Awaitable[None]) -> None:
        """Run the work. A signal cancels it, and its result or error after that is dropped.

        If the work has not ended `_GRACE_S` after the signal, the process exits by force: a blocked event loop or a
        thread that the interpreter waits for could hold it up.
        """
        import asyncio

        task, loop = asyncio.ensure_future(work), asyncio.get_running_loop()
        self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
        try:
            await task
        except BaseException:
            if self.status is None:
                raise
        finally:
            self._cancel = None

    def exit_if_signalled(self) -> None:
        """Exit the process at once if a signal came: the interpreter's own shutdown is slow, and a second signal
        could come meanwhile."""
        if self.status is not None:
            self._exit()

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        """Runs anywhere in the main thread. It takes no lock and raises nothing, as an exception could be swallowed."""
        if self.status is not None:
            return  # a terminal and a parent process may both send the signal
        self.status = 128 + number
        if self._cancel is None:
            self._report(number)
            self._exit()
        _thread.start_new_thread(self._exit_after_grace, ())
        self._report(number)
        self._cancel()

    def _report(self, number: int) -> None:
        with suppress(OSError):  # standard error may be closed
            os.write(_STDERR, f"mynah: {_MESSAGES[signal.Signals(number)]}\n".encode())

    def _exit_after_grace(self) -> None:
        time.sleep(_GRACE_S)
        self._exit()

    def _exit(self) -> NoReturn:
        assert self.status is not None
        os._exit(self.status)
