"""Child processes of `make demo` and `make serve`: started apart from the terminal, and never left behind.

A terminal sends Ctrl-C to every process of its group. Children in sessions of their own receive only what their parent
passes on, so a server gets one signal and not two, of which the second would end its grace period.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_END_TIMEOUT_S = 40.0  # a server's grace period, and some
_alive: set[asyncio.subprocess.Process] = set()


@asynccontextmanager
async def child(*command: str, **options: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process in a session of its own. It is ended with SIGTERM, and with SIGKILL if that does not end it."""
    process = await asyncio.create_subprocess_exec(*command, start_new_session=True, **options)
    _alive.add(process)
    try:
        yield process
    finally:
        _terminate(process)
        try:
            async with asyncio.timeout(_END_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        _alive.discard(process)


def _terminate(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.terminate()


def run(work: Coroutine[Any, Any, int | None]) -> int:
    """Run `work` and return its exit status. A signal cancels it; then this process ends by that signal, silently.

    `make` prints a line about the interrupt itself. Every further signal goes to the children that are still ending.
    """
    received: list[int] = []

    async def interruptible() -> int:
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)

        def on_signal(number: int) -> None:
            received.append(number)
            if len(received) == 1:
                task.cancel()
            else:
                for process in _alive:
                    _terminate(process)

        for number in _SIGNALS:
            loop.add_signal_handler(number, on_signal, number)
        try:
            return await task or 0
        except BaseException:
            if received:
                return 1
            raise

    status = asyncio.run(interruptible())
    if received:
        signal.signal(received[0], signal.SIG_DFL)
        os.kill(os.getpid(), received[0])
    return status
