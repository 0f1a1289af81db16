"""Shares of the event loop's time for what clients send, so that no client's input delays another client's audio.

Reading, parsing and applying input takes turns: all connections together get a few milliseconds of each pass of the
event loop, and those that have used least go first.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from math import exp

PASS_S = 0.01  # of input in one pass of the event loop
_RESERVED_S = 0.0025  # of a pass, for a task that begins its turn in the next one
_FORGET_S = 10.0  # time constant of what an account has used


class Account:
    """What one connection has used lately, in seconds of the event loop."""

    def __init__(self) -> None:
        self.used_s = 0.0
        self.noted_s = 0.0

    def add(self, seconds: float, now_s: float) -> None:
        self.used_s = self.used_s * exp((self.noted_s - now_s) / _FORGET_S) + seconds
        self.noted_s = now_s


class Turns:
    """Gives turns to callbacks (`submit`) and to tasks (`wait`, then `spending`). Used from one event loop.

    A turn begins at once while there is time left in this pass. Otherwise it waits for a later pass. `largest_pass_s`
    is the longest time that input took of one pass, and `passes` counts those in which turns had to wait.
    """

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self._left_s = PASS_S
        self._renewing = False
        self._waiting: list[tuple[float, int, Account, Callable[[], None]]] = []
        self._order = count()
        self.largest_pass_s = 0.0
        self.passes = 0

    @property
    def waiting(self) -> int:
        """The turns that wait for a later pass."""
        return len(self._waiting)

    def submit(self, account: Account, work: Callable[[], None]) -> bool:
        """Runs `work` in a turn. Returns whether it has run already; otherwise it runs in a later pass."""
        if self._has_time():
            self._run(account, work)
            return True
        heapq.heappush(self._waiting, (account.used_s, next(self._order), account, work))
        self._renew_later()
        return False

    async def wait(self, account: Account) -> None:
        """Returns when the account's turn has come. What it does then belongs into `spending`."""
        if self._has_time():
            return
        turn = asyncio.get_running_loop().create_future()

        def begin() -> None:
            if not turn.done():
                turn.set_result(None)
                self._left_s -= _RESERVED_S

        heapq.heappush(self._waiting, (account.used_s, next(self._order), account, begin))
        self._renew_later()
        await turn

    @contextmanager
    def spending(self, account: Account, extra_s: float = 0.0) -> Iterator[None]:
        """Counts the time inside, and `extra_s` for what it causes elsewhere, as the account's."""
        self._renew_later()
        began_s = self._clock()
        try:
            yield
        finally:
            now_s = self._clock()
            account.add(now_s - began_s + extra_s, now_s)
            self._left_s -= now_s - began_s + extra_s

    def _has_time(self) -> bool:
        return self._left_s > 0.0 and not self._waiting

    def _run(self, account: Account, work: Callable[[], None]) -> None:
        with self.spending(account):
            work()

    def _renew_later(self) -> None:
        if not self._renewing:
            self._renewing = True
            asyncio.get_running_loop().call_soon(self._renew)

    def _renew(self) -> None:
        """Runs once in a pass of the event loop in which input was read or has waited."""
        self._renewing = False
        self.largest_pass_s = max(self.largest_pass_s, PASS_S - self._left_s)
        self._left_s = PASS_S
        self.passes += bool(self._waiting)
        while self._waiting and self._left_s > 0.0:
            _, _, account, work = heapq.heappop(self._waiting)
            self._run(account, work)
        if self._waiting:
            self._renew_later()
