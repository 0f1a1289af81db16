"""Windows that wait for the device, and which of them are decoded next together.

Decisions only: time comes in as a number, the cost of a call from DecodeTimes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from engines.s3gen.noise import F32
from engines.s3gen.runtime import Runtime, WaveformRuntime
from engines.s3gen.streaming.decode_times import DecodeTimes
from engines.s3gen.streaming.segment_decoder import SegmentDecoder, window_tokens, window_work
from engines.s3gen.streaming.windows import Window

# Padding a short row to a long one wastes the difference; beyond this it is cheaper to run two batches.
_MAX_PADDING_RATIO = 1.3
_PATIENCE_S = 1.0  # for so long a first window lets streams go first that would run dry
OFFLINE_DEADLINE_S = 60.0  # from now on, for windows without a listener: those of listeners go first
# Expected times err, so a window counts as late only if it misses its deadline at this share of the expected time.
_CERTAIN_RATIO = 0.75


class Enlargeable(Protocol):
    """A plan that can enlarge a window while it waits; see SegmentPlan."""

    @property
    def made_tokens(self) -> int: ...

    def enlarge(self, window: Window, now_s: float) -> Window: ...


@dataclass(frozen=True)
class Decoded:
    """A decoded window: its final samples, the window in its final size, its time in the queue and on the device."""

    samples: F32
    window: Window
    queue_s: float
    decode_s: float


@dataclass(eq=False)
class DecodeRequest:
    """A window to be decoded. Times are on the event loop's clock."""

    decoder: SegmentDecoder
    window: Window
    result: asyncio.Future[Decoded]
    submitted_s: float
    deadline_s: float  # when its samples should be ready
    plan: Enlargeable | None = None
    retried: bool = False
    start_by_s: float = 0.0  # latest time to begin; this and the following are set by the queue
    tokens: int = 0  # that go through the flow: its shape
    work: int = 0  # its cost, in the unit of DecodeTimes
    made_tokens: int = 0  # by T3 for its segment when its call began

    @property
    def has_listener(self) -> bool:
        """Whether the audio is played while it is made."""
        return self.deadline_s - self.submitted_s < OFFLINE_DEADLINE_S / 2

    def late(self, ready_s: float) -> bool:
        """Whether playback has a gap if it is ready at `ready_s`. A first window is never late, nor is one without a
        listener, however many of them wait."""
        return self.has_listener and self.window.index > 0 and ready_s > self.deadline_s

    def begin(self) -> None:
        """Its call begins now."""
        if self.plan is not None:
            self.made_tokens = self.plan.made_tokens

    @property
    def beside_t3(self) -> bool:
        """Whether T3 has made tokens of its segment since its call began."""
        return self.plan is not None and self.plan.made_tokens > self.made_tokens

    def priority_key(self, now_s: float) -> tuple[int, float]:
        """Smaller goes first: streams about to run dry and those that waited too long, first windows, the others."""
        kind = 0 if self.start_by_s <= now_s else 1 if self.window.index == 0 and self.has_listener else 2
        return kind, self.start_by_s


class WindowQueue:
    """The requests that wait; bounded by the number of streams, each of which has at most one."""

    def __init__(self, runtime: Runtime | WaveformRuntime, times: DecodeTimes, max_batch: int) -> None:
        self._runtime, self._times, self._max_batch = runtime, times, max_batch
        self._waiting: list[DecodeRequest] = []  # in order of arrival

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, request: DecodeRequest) -> None:
        self.measure(request)
        self._waiting.append(request)

    def drop(self, request: DecodeRequest) -> None:
        """Idempotent."""
        if request in self._waiting:
            self._waiting.remove(request)

    def clear(self) -> list[DecodeRequest]:
        """Drop everything and return it."""
        dropped, self._waiting = self._waiting, []
        return dropped

    def measure(self, request: DecodeRequest) -> None:
        """Set the cost of the request's window and the latest time to begin with it."""
        request.tokens = window_tokens(self._runtime, request.decoder, request.window)
        request.work = window_work(self._runtime, request.decoder, request.window)
        if request.window.index == 0:
            request.start_by_s = request.deadline_s + _PATIENCE_S
            return
        # a call may just have begun, and a window rarely goes alone
        rows = self._times.worthwhile_rows(request.work, self._max_batch)
        request.start_by_s = request.deadline_s - 2.0 * self._times.call_s(rows * request.work)

    def next_batch(self, now_s: float) -> list[DecodeRequest]:
        """Take the most urgent request, and the most urgent others that may share its call.

        Waiting windows are first enlarged by the tokens that have come meanwhile.
        """
        for request in self._waiting:
            if request.plan is not None:
                request.window = request.plan.enlarge(request.window, now_s)
                self.measure(request)
        ordered = sorted(self._waiting, key=lambda request: request.priority_key(now_s))
        batch = ordered[:1]
        for request in ordered[1:]:
            if self._may_share(batch, request, now_s):
                batch.append(request)
        for request in batch:
            self._waiting.remove(request)
        return batch

    def _may_share(self, batch: Sequence[DecodeRequest], request: DecodeRequest, now_s: float) -> bool:
        """Whether a call of `batch` and `request` saves time, pads little, and makes none of `batch` late."""
        rows = [*batch, request]
        if len(rows) > self._times.worthwhile_rows(max(row.work for row in rows), self._max_batch):
            return False
        if max(row.tokens for row in rows) > _MAX_PADDING_RATIO * min(row.tokens for row in rows):
            return False
        before_s = now_s + self._times.call_s(sum(row.work for row in batch))
        after_s = now_s + self._times.call_s(sum(row.work for row in rows))
        return not any(row.late(after_s) and not row.late(before_s) for row in batch)

    def will_miss_deadline(self, running: Sequence[DecodeRequest], busy_s: float, now_s: float) -> bool:
        """Whether any window, waiting or in the running call that ends in `busy_s`, is almost certain to be late."""
        waiting = ((request, busy_s + self._times.call_s(request.work)) for request in self._waiting)
        return any(
            request.late(now_s + _CERTAIN_RATIO * in_s)
            for request, in_s in (*waiting, *((request, busy_s) for request in running))
        )
