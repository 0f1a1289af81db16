"""Who may come in: the server's state and its slots. Refuses at once; nobody waits in line here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from enum import Enum

from service.access.auth import Authenticator
from service.errors import ResourceExhausted, Unavailable
from service.telemetry.metrics import counting_rejections

_RETRY_AFTER_S = 1.0  # while nothing better is known
_LEAST_RETRY_S, _MOST_RETRY_S = 0.2, 30.0
_SMOOTHING = 0.1  # weight of the stay that ended last


class State(Enum):
    """What the server is doing; it only moves forward."""

    WARMING_UP = "warming up"
    SERVING = "serving"
    DRAINING = "about to stop"


class Slots:
    """At most `capacity` holders at a time."""

    def __init__(self, capacity: int, what: str, reason: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.capacity = capacity
        self.in_use = 0
        self._what, self._reason = what, reason
        self._clock = clock
        self._hold_s: float | None = None  # how long a holder stays, lately
        self._free = asyncio.Event()
        self._free.set()

    @contextmanager
    def acquire(self) -> Iterator[None]:
        """One slot, given back on leaving. Raises NoRoom at once when all are taken."""
        if self.in_use >= self.capacity:
            message = f"all {self.capacity} {self._what} are taken; retry when one has ended"
            raise ResourceExhausted(
                self._reason, message, allowed=f"{self.capacity} {self._what}", retry_after_s=self.retry_after_s
            )
        self.in_use += 1
        self._free.clear()
        began_s = self._clock()
        try:
            yield
        finally:
            self.in_use -= 1
            self._note_hold(self._clock() - began_s)
            if self.in_use == 0:
                self._free.set()

    @property
    def retry_after_s(self) -> float:
        """When a slot is likely to be free: of `capacity` holders that stay for a while, one leaves every so often."""
        if self._hold_s is None:
            return _RETRY_AFTER_S
        return min(_MOST_RETRY_S, max(_LEAST_RETRY_S, self._hold_s / self.capacity))

    def _note_hold(self, hold_s: float) -> None:
        self._hold_s = hold_s if self._hold_s is None else self._hold_s + _SMOOTHING * (hold_s - self._hold_s)

    async def wait_idle(self) -> None:
        """Return when nobody holds a slot."""
        await self._free.wait()


class Admission:
    """The door: streams and uploads come in while the server serves; `stopped` tells those inside to leave."""

    def __init__(self, max_streams: int, max_uploads: int, gate: Authenticator | None = None) -> None:
        self.gate = gate or Authenticator()
        self.streams = Slots(max_streams, "streams", "STREAMS_EXHAUSTED")
        self.uploads = Slots(max_uploads, "uploads", "UPLOADS_EXHAUSTED")
        self.stopped = asyncio.Event()
        self.state = State.WARMING_UP

    def open(self, max_streams: int | None = None) -> None:
        """Warm-up is over, and has shown how many streams there may be."""
        if max_streams is not None:
            self.streams.capacity = max_streams
        if self.state is State.WARMING_UP:
            self.state = State.SERVING

    def drain(self) -> None:
        """Nobody comes in any more; those inside finish."""
        self.state = State.DRAINING

    @contextmanager
    def stream(self) -> Iterator[None]:
        """A stream's slot, counted as the caller's. Raises NotServing, NoRoom, NotAllowed."""
        with ExitStack() as held:
            with counting_rejections():
                self.must_serve()
                held.enter_context(self.streams.acquire())
                held.enter_context(self.gate.stream())
            yield

    @contextmanager
    def upload(self) -> Iterator[None]:
        """An upload's slot, counted as the caller's. Raises NotServing, NoRoom, NotAllowed."""
        self.must_serve()
        with self.uploads.acquire():
            self.gate.count_start()
            yield

    def must_serve(self) -> None:
        """Raises NotServing unless the server serves."""
        if self.state is State.SERVING:
            return
        reason = "NOT_READY" if self.state is State.WARMING_UP else "DRAINING"
        raise Unavailable(reason, f"the server is {self.state.value}", retry_after_s=_RETRY_AFTER_S)

    async def wait_idle(self) -> None:
        """Return when no stream and no upload is inside."""
        await self.streams.wait_idle()
        await self.uploads.wait_idle()

    async def wait_for_shutdown(self) -> None:
        """For those inside: raises NotServing once the grace period is over."""
        await self.stopped.wait()
        raise Unavailable("DRAINING", "the server stopped before the stream had ended", retry_after_s=_RETRY_AFTER_S)
