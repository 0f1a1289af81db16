"""The watchdog: finds an engine or an event loop that has stopped, and ends what waits for it.

An engine has stalled if one of its blocking calls does not return, or if a stream waits for it and nothing has
advanced on any stream, for longer than the bound: `hang_timeout_s`, and ten times the longest recent call. It stays
stalled until the process ends, because the thread that hangs cannot be ended.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import sys
import threading
import time
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import Any, TypeVar

from engines.api import Engine, Event, Segment, SpeechStream
from engines.config import Sampling
from engines.voice import Voice
from engines.wrapper import EngineWrapper
from service.errors import Unavailable
from service.shutdown import force_exit
from service.telemetry import metrics
from service.telemetry.call_log import ENGINE_CALLS, CallLog
from service.telemetry.logs import Lines

log = logging.getLogger("mynah.service")
T = TypeVar("T")

_LONGEST_CALLS = 10  # a call that takes this many times the longest recent one is not merely slow
_REBUILDING = 10  # how much longer an engine may take while it says itself that it is being rebuilt
_MAX_INTERVAL_S = 1.0
_MIN_ALARM_S = 30.0  # a process that was stopped for longer ends when it goes on
_END_ALARM_S = 15.0  # for the interpreter's own end, in which libraries wait for their threads
_RETRY_AFTER_S = 1.0


class Watchdog:
    """Watches one engine and one event loop, from a thread of its own between `start` and `stop`.

    `tick` decides, and is given the time that has passed; the thread only calls it.
    """

    def __init__(
        self,
        hang_timeout_s: float,
        on_stall: Callable[[Unavailable], None],
        *,
        calls: CallLog = ENGINE_CALLS,
        leave: Callable[[str], None] = force_exit,
    ) -> None:
        """`on_stall` is called once, on the event loop; `leave` ends the process if the event loop has stalled."""
        self._hang_timeout_s, self._on_stall, self._calls, self._leave = hang_timeout_s, on_stall, calls, leave
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = threading.Event()
        self._healthy: Callable[[], bool] = lambda: True
        self._alarm_s: float | None = None
        self._stalled = False
        self._waiters: set[asyncio.Future[None]] = set()
        self._abandoned: set[asyncio.Future[Any]] = set()
        # written by the event loop, read by the watching thread
        self._waiting = 0
        self._advanced = 0
        self._beats = 0
        # of the watching thread
        self._asked_beats = 0
        self._silent_s = 0.0
        self._seen_s: dict[int, float] = {}
        self._idle_s = 0.0
        self._seen_progress = (0, 0)
        self._reported: set[str] = set()

    def start(self, healthy: Callable[[], bool] = lambda: True) -> None:
        """Watch from now on. `healthy` says whether the engine is not being rebuilt. Called on the event loop."""
        self._loop, self._healthy = asyncio.get_running_loop(), healthy
        self._set_alarm()
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def watch_interpreter(self) -> None:
        """While it watches, also end the process if no Python code runs: a library holds the interpreter's lock.

        A thread of `faulthandler` does it, which needs no lock: it writes the stacks to stderr, and ends the process
        with status 1. There is one such thread in a process.
        """
        self._alarm_s = max(_MIN_ALARM_S, 2 * self._hang_timeout_s)

    def stop(self) -> None:
        """Watch no longer, but for the interpreter's own end, which gets a bound. Idempotent."""
        if not self._stopped.is_set() and self._alarm_s is not None:
            self._alarm_s = _END_ALARM_S
            self._set_alarm()
        self._stopped.set()

    @property
    def left_behind(self) -> bool:
        """Whether work of the engine has not ended, abandoned or not: the interpreter might wait for it for ever."""
        return bool(self._abandoned) or self._waiting > 0

    async def guard(self, work: Awaitable[T]) -> T:
        """Await work of the engine. If the engine stalls, abandons the work and raises Unavailable.

        Also a cancelled call waits for its work to end, unless the engine stalls.
        """
        task = asyncio.ensure_future(work)
        self._waiting += 1
        try:
            await self._first_of(task)
        except asyncio.CancelledError:
            task.cancel()
            await self._first_of(task)
            raise
        finally:
            self._waiting -= 1
            self._advanced += 1
            ended = task.done()
            if not ended:
                self._abandon(task)
        if not ended:
            raise _stalled_error()
        return await task

    async def _first_of(self, task: asyncio.Future[Any]) -> None:
        """Waits until the task has ended or the engine has stalled. Called for every chunk of every stream."""
        if self._stalled:
            return
        waiter = asyncio.get_running_loop().create_future()

        def end_waiting(_: object) -> None:
            if not waiter.done():
                waiter.set_result(None)

        self._waiters.add(waiter)
        task.add_done_callback(end_waiting)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
            task.remove_done_callback(end_waiting)

    def _abandon(self, task: asyncio.Future[Any]) -> None:
        task.cancel()
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)
        task.add_done_callback(_retrieve)

    def _run(self) -> None:
        interval_s = min(_MAX_INTERVAL_S, self._hang_timeout_s / 10)
        last_s = time.monotonic()
        while not self._stopped.wait(interval_s):
            self._set_alarm()  # a short one if `stop` is called now
            now_s = time.monotonic()
            # a process that was stopped for a while, or had no processor, has not stalled
            self.tick(min(now_s - last_s, 2 * interval_s))
            last_s = now_s

    def _set_alarm(self) -> None:
        """Postpones the end of the process. The one that `stop` sets holds: the end may hang, too."""
        if self._alarm_s is not None:
            faulthandler.dump_traceback_later(self._alarm_s, exit=True, file=sys.stderr)

    def tick(self, elapsed_s: float) -> None:
        """Look once, `elapsed_s` after the last time. Called on the watching thread."""
        if self._loop_is_silent(elapsed_s):
            return  # nothing else can advance either
        for number, part in self._late_calls(elapsed_s):
            self._stall(part, f"a call has not returned for {self._seen_s[number]:.0f} s")
        if self._nothing_advances(elapsed_s):
            self._stall("engine", f"streams wait for it and nothing has advanced for {self._idle_s:.0f} s")

    @property
    def bound_s(self) -> float:
        """How long work may stand still."""
        bound_s = max(self._hang_timeout_s, _LONGEST_CALLS * self._calls.longest_s())
        return bound_s if self._healthy() else _REBUILDING * bound_s

    def _loop_is_silent(self, elapsed_s: float) -> bool:
        if self._beats == self._asked_beats:
            self._silent_s = 0.0
            self._asked_beats += 1
            assert self._loop is not None
            try:
                self._loop.call_soon_threadsafe(self._beat)
            except RuntimeError:  # the loop is closed
                self._stopped.set()
            return False
        self._silent_s += elapsed_s
        if self._silent_s > self._hang_timeout_s:
            self._report("event_loop", f"it has not run for {self._silent_s:.0f} s")
        if self._silent_s > 2 * self._hang_timeout_s:
            self._leave("The event loop has stalled, so that no call can be answered.")
        return self._silent_s > 2 * elapsed_s

    def _beat(self) -> None:
        self._beats += 1

    def _late_calls(self, elapsed_s: float) -> Iterator[tuple[int, str]]:
        running, bound_s = self._calls.running(), self.bound_s
        self._seen_s = {number: self._seen_s.get(number, 0.0) + elapsed_s for number in running}
        return ((number, part) for number, part in running.items() if self._seen_s[number] > bound_s)

    def _nothing_advances(self, elapsed_s: float) -> bool:
        progress = (self._advanced, self._calls.ended)
        if not self._waiting or progress != self._seen_progress:
            self._seen_progress, self._idle_s = progress, 0.0
            return False
        self._idle_s += elapsed_s
        return self._idle_s > self.bound_s

    def _stall(self, part: str, problem: str) -> None:
        first = not self._reported - {"event_loop"}
        self._report(part, problem)
        if first:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._end_waiting)

    def _report(self, part: str, problem: str) -> None:
        """Logs once for each part, with the stacks of all threads once for the process."""
        if part in self._reported:
            return
        stacks = "" if self._reported else stacks_of_all_threads()
        self._reported.add(part)
        metrics.STALLED.labels(part).set(1)
        log.critical("%s has stalled: %s. Threads: %s", part, problem, Lines(stacks) or "see above")

    def _end_waiting(self) -> None:
        if self._stalled:
            return
        self._stalled = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._on_stall(_stalled_error())


def stacks_of_all_threads() -> str:
    """The stack of each Python thread, with its name. It holds source lines and no values."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    stacks = sys._current_frames().items()
    return "\n".join(f"{names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}" for ident, frame in stacks)


def _stalled_error() -> Unavailable:
    message = "The engine has stalled and this server must be restarted; retry on another server, or later."
    return Unavailable("ENGINE_STALLED", message, retry_after_s=_RETRY_AFTER_S)


def _retrieve(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()  # otherwise asyncio logs it


class WatchedEngine(EngineWrapper):
    """An Engine whose streams a watchdog guards: they end when the engine stalls, also while they are being closed."""

    def __init__(self, engine: Engine, watchdog: Watchdog) -> None:
        super().__init__(engine)
        self._watchdog = watchdog

    async def open(self, voice: Voice, sampling: Sampling) -> SpeechStream:
        return _WatchedStream(await self._engine.open(voice, sampling), self._watchdog)


class _WatchedStream:
    def __init__(self, stream: SpeechStream, watchdog: Watchdog) -> None:
        self._stream, self._watchdog = stream, watchdog

    def prepare(self, segment: Segment) -> None:
        self._stream.prepare(segment)

    async def speak(self, segment: Segment) -> AsyncGenerator[Event, None]:
        events = self._stream.speak(segment)
        advancing: asyncio.Future[Event | None] | None = None
        try:
            while True:
                advancing = asyncio.ensure_future(_next_of(events))
                if (event := await self._watchdog.guard(advancing)) is None:
                    return
                yield event
        finally:
            if advancing is None or advancing.done():  # otherwise it hangs, and closing it would raise
                await self._watchdog.guard(events.aclose())

    async def close(self) -> None:
        await self._watchdog.guard(_closed(self._stream))


async def _next_of(events: AsyncGenerator[Event, None]) -> Event | None:
    return await anext(events, None)


async def _closed(stream: SpeechStream) -> None:
    await stream.close()
