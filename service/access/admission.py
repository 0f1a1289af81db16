"""Admission control: the server's state, and slots for streams and uploads.

There is no queue: a call is admitted or rejected at once. A stream with a listener takes a slot of those that the
device carries in real time. One without (schedule `offline`) only takes room in the engine: many of them make one
another slower, which does not matter.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from enum import Enum

from service.access.auth import Authenticator
from service.access.turns import Turns
from service.errors import ResourceExhausted, Unavailable
from service.telemetry.metrics import UPLOADS_ACTIVE, counting_rejections

_RETRY_AFTER_S = 1.0  # before a hold time is known
_MIN_RETRY_S, _MAX_RETRY_S = 0.2, 30.0
_SMOOTHING = 0.1  # weight of the latest hold time in their moving average


class State(Enum):
    """The server's state, which only moves forward."""

    WARMING_UP = "warming up"
    SERVING = "serving"
    DRAINING = "about to stop"
    STALLED = "stalled"


class Slots:
    """A counter of slots, `capacity` of them at most, that estimates when one becomes free."""

    def __init__(self, capacity: int, plural: str, reason: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.capacity = capacity
        self.in_use = 0
        self._plural, self._reason = plural, reason
        self._clock = clock
        self._hold_s: float | None = None  # moving average of hold times
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def acquire(self) -> Iterator[None]:
        """Holds one slot inside the block. Raises ResourceExhausted if all are in use."""
        if self.in_use >= self.capacity:
            raise self.exhausted()
        self.in_use += 1
        self._idle.clear()
        began_s = self._clock()
        try:
            yield
        finally:
            self.in_use -= 1
            self._note_hold(self._clock() - began_s)
            if self.in_use == 0:
                self._idle.set()

    def exhausted(self) -> ResourceExhausted:
        """The error of a call that finds no slot."""
        allowed = f"{self.capacity} {self._plural}"
        message = f"The server already has {allowed}, its limit; retry when one has ended."
        return ResourceExhausted(self._reason, message, allowed=allowed, retry_after_s=self.retry_after_s)

    @property
    def retry_after_s(self) -> float:
        """Expected seconds until a slot is free: the mean hold time divided by the capacity, within bounds."""
        if self._hold_s is None:
            return _RETRY_AFTER_S
        return min(_MAX_RETRY_S, max(_MIN_RETRY_S, self._hold_s / self.capacity))

    def _note_hold(self, hold_s: float) -> None:
        self._hold_s = hold_s if self._hold_s is None else self._hold_s + _SMOOTHING * (hold_s - self._hold_s)

    async def wait_idle(self) -> None:
        """Returns when no slot is in use."""
        await self._idle.wait()


class Admission:
    """Admits streams and uploads while the server serves; setting `stopped` ends those that are still open."""

    def __init__(self, max_streams: int, max_uploads: int, authenticator: Authenticator | None = None) -> None:
        self.authenticator = authenticator or Authenticator()
        self.streams = Slots(max_streams, "streams", "STREAMS_EXHAUSTED")
        self.offline = Slots(max_streams, "streams without a listener", "OFFLINE_STREAMS_EXHAUSTED")
        self._max_open = max_streams  # of both kinds
        self.uploads = Slots(max_uploads, "uploads", "UPLOADS_EXHAUSTED")
        self.turns = Turns()
        self.stopped = asyncio.Event()
        self.state = State.WARMING_UP
        self.stalled: Unavailable | None = None

    def open(self, max_streams: int | None = None, max_open: int | None = None) -> None:
        """Begins to serve after warm-up. `max_streams` is the capacity that it measured, if any; `max_open` the streams
        for which the engine has room, with and without listeners, by default as many."""
        if max_streams is not None:
            self.streams.capacity = self._max_open = max_streams
        if max_open is not None:
            self._max_open = max(max_open, self.streams.capacity)
        if self.state is State.WARMING_UP:
            self.state = State.SERVING

    def drain(self) -> None:
        """Rejects new streams and uploads; open ones finish."""
        if self.stalled is None:
            self.state = State.DRAINING

    def stall(self, error: Unavailable) -> None:
        """Ends all streams with this error, and rejects new streams and uploads with it, until the process ends."""
        self.stalled, self.state = error, State.STALLED
        self.stopped.set()

    @property
    def open_streams(self) -> int:
        """Open streams, with and without listeners."""
        return self.streams.in_use + self.offline.in_use

    @contextmanager
    def stream(self, *, offline: bool = False) -> Iterator[None]:
        """Holds a stream's slot, and one of the caller's. `offline`: the stream has no listener.

        Raises Unavailable, ResourceExhausted, Unauthenticated.
        """
        with ExitStack() as held:
            with counting_rejections():
                self.check_serving()
                held.enter_context(self._offline_slot() if offline else self._slot())
                held.enter_context(self.authenticator.stream())
            yield

    def _slot(self) -> AbstractContextManager[None]:
        if self.open_streams >= self._max_open:
            raise self.streams.exhausted()  # for the moment: no stream without a listener follows those that end
        return self.streams.acquire()

    def _offline_slot(self) -> AbstractContextManager[None]:
        """Beside listeners, what they leave of the capacity; else all room in the engine but one listener's."""
        most = self.streams.capacity if self.streams.in_use else max(self.streams.capacity, self._max_open - 1)
        self.offline.capacity = max(1, most - self.streams.in_use)
        if self.open_streams >= most:
            raise self.offline.exhausted()
        return self.offline.acquire()

    @contextmanager
    def upload(self) -> Iterator[None]:
        """Holds an upload's slot. Raises Unavailable, ResourceExhausted, Unauthenticated."""
        self.check_serving()
        with self.uploads.acquire(), UPLOADS_ACTIVE.track_inprogress():
            self.authenticator.count_start()
            yield

    def check_serving(self) -> None:
        """Raises Unavailable unless the server serves."""
        self.check_alive()
        if self.state is State.SERVING:
            return
        reason = "NOT_READY" if self.state is State.WARMING_UP else "DRAINING"
        raise Unavailable(reason, f"The server is {self.state.value}; retry later.", retry_after_s=_RETRY_AFTER_S)

    def check_alive(self) -> None:
        """Raises Unavailable if the server has stalled."""
        if self.stalled is not None:
            raise _again(self.stalled)

    async def wait_idle(self) -> None:
        """Returns when all streams and uploads have ended."""
        await self.streams.wait_idle()
        await self.offline.wait_idle()
        await self.uploads.wait_idle()

    async def wait_for_shutdown(self) -> None:
        """Waits until `stopped` is set; then raises Unavailable. For the tasks of open streams."""
        await self.stopped.wait()
        self.check_alive()
        raise Unavailable(
            "DRAINING",
            "The server stopped before the stream had ended; retry on another server.",
            retry_after_s=_RETRY_AFTER_S,
        )


def _again(error: Unavailable) -> Unavailable:
    """The same error for another caller: a raised exception keeps the traceback of each of its callers."""
    return Unavailable(error.reason, str(error), retry_after_s=error.retry_after_s)
