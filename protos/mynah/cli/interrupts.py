"""SIGINT and SIGTERM: whatever the command is doing, it says so, ends soon and leaves with their exit status.

Knows nothing of what the command does, and imports little: start-up is long, and a signal may come before its end.
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

_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
_STDERR = 2  # beneath Python's own file, which may be in the middle of a write
_GRACE_S = 3.0  # for closing the file and the stream; far more than they take


class Interrupts:
    """Takes the signals from when it is made. `status` is None until the first, then 128 + its number.

    A signal that was ignored stays so: a script's background job starts with SIGINT ignored, and means it.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        self._cancel: Callable[[], object] | None = None  # what is there to be cancelled
        for number in _WORDS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._came)

    async def ending(self, work: Awaitable[None]) -> None:
        """Do the work. A signal cancels it; then this returns whatever the work ended with, errors too.

        The process is left by force when it has not ended `_GRACE_S` after the signal: something may block the event
        loop, or a thread that the interpreter waits for.
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

    def leave(self) -> None:
        """End the process if a signal came; the interpreter's own end would take its time, and a second signal."""
        if self.status is not None:
            self._end()

    def _came(self, number: int, _: FrameType | None) -> None:
        """Runs anywhere in the main thread: raises nothing, which might be swallowed there, and takes no lock."""
        if self.status is not None:
            return  # sent twice, as by a terminal and by a parent, it is still one interrupt
        self.status = 128 + number
        if self._cancel is None:
            self._tell(number)
            self._end()
        _thread.start_new_thread(self._end_late, ())
        self._tell(number)
        self._cancel()

    def _tell(self, number: int) -> None:
        with suppress(OSError):  # nobody may read it any more
            os.write(_STDERR, f"mynah: {_WORDS[signal.Signals(number)]}\n".encode())

    def _end_late(self) -> None:
        time.sleep(_GRACE_S)
        self._end()

    def _end(self) -> NoReturn:
        assert self.status is not None
        os._exit(self.status)
