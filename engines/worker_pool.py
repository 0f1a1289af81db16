"""A bounded pool of threads for one kind of blocking work, with a time limit on each call.

Work that hangs holds threads of its own pool only. Time limits are in real time, also on a virtual event loop.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, ParamSpec, TypeVar

from engines.errors import TimeLimitExceeded

P = ParamSpec("P")
T = TypeVar("T")


class WorkerPool:
    """Runs blocking functions on at most `workers` threads, which start when they are needed.

    The threads are daemons: a function that never returns does not keep the process from ending.
    """

    def __init__(
        self, name: str, *, workers: int, time_limit_s: float, reason: str, work: str, max_waiting: int = 1000
    ) -> None:
        """`work` names what is done, at the start of an error's sentence; `reason` is that error's reason."""
        self.time_limit_s = time_limit_s
        self._name, self._workers, self._max_waiting = name, workers, max_waiting
        self._reason, self._work_name = reason, work
        self._lock = threading.Lock()
        self._threads = 0
        self._unfinished = 0  # running and waiting
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()

    @property
    def unfinished(self) -> int:
        """Calls that run or wait, those that have exceeded their time limit included."""
        return self._unfinished

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await a call, in a copy of the current context.

        Raises what the function raises, and TimeLimitExceeded if it has not returned within the time limit, the wait
        for a thread included, or if too many calls wait. The function itself cannot be interrupted.
        """
        return await self.run_within(self.time_limit_s, function, *args, **kwargs)

    async def run_within(self, time_limit_s: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `run`, with a time limit of its own."""
        return await asyncio.wrap_future(self._submit(partial(function, *args, **kwargs), time_limit_s))

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Block until a call has ended. Raises as `run`."""
        return self._submit(partial(function, *args, **kwargs), self.time_limit_s).result()

    def _submit(self, work: Callable[[], T], time_limit_s: float) -> Future[T]:
        outcome: Future[T] = Future()
        with self._lock:
            if self._unfinished >= self._workers + self._max_waiting:
                raise self._late(f"{self._unfinished} calls wait already")
            self._unfinished += 1
            self._calls.put((partial(copy_context().run, work), outcome))
            if self._threads < min(self._workers, self._unfinished):
                self._threads += 1
                name = f"{self._name}-{self._threads}"
                threading.Thread(target=self._serve, name=name, daemon=True).start()
        late = self._late(f"it took more than {time_limit_s:g} s")
        _TIME_LIMITS.add(time.monotonic() + time_limit_s, outcome, late)
        return outcome

    def _serve(self) -> None:
        while True:
            work, outcome = self._calls.get()
            if not outcome.done():  # otherwise its caller has given up
                _execute(work, outcome)
            del work, outcome
            with self._lock:
                self._unfinished -= 1

    def _late(self, problem: str) -> TimeLimitExceeded:
        return TimeLimitExceeded(self._reason, f"{self._work_name} did not end in time: {problem}; retry later.")


def _execute(work: Callable[[], T], outcome: Future[T]) -> None:
    try:
        result = work()
    except BaseException as error:
        with suppress(InvalidStateError):  # the time limit has passed or the caller has given up meanwhile
            outcome.set_exception(error)
    else:
        with suppress(InvalidStateError):
            outcome.set_result(result)


class _TimeLimits:
    """The thread that fails the calls whose time limit has passed."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._order = itertools.count()
        self._heap: list[tuple[float, int, Future[Any], Exception]] = []
        self._started = False

    def add(self, at_s: float, outcome: Future[Any], error: Exception) -> None:
        with self._changed:
            heapq.heappush(self._heap, (at_s, next(self._order), outcome, error))
            if not self._started:
                self._started = True
                threading.Thread(target=self._run, name="time-limits", daemon=True).start()
            if self._heap[0][2] is outcome:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            outcome, error = self._next()
            with suppress(InvalidStateError):
                outcome.set_exception(error)

    def _next(self) -> tuple[Future[Any], Exception]:
        """Waits for the next call that is late."""
        with self._changed:
            while True:
                while self._heap and self._heap[0][2].done():
                    heapq.heappop(self._heap)
                wait_s = self._heap[0][0] - time.monotonic() if self._heap else None
                if wait_s is not None and wait_s <= 0:
                    _, _, outcome, error = heapq.heappop(self._heap)
                    return outcome, error
                self._changed.wait(wait_s)


_TIME_LIMITS = _TimeLimits()
