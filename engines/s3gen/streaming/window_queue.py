"""Windows that wait for the device, and which of them go next together.

Decisions alone: time comes in as a number, what a call costs from DecodeTimes. Asks a runtime for nothing but how many
tokens it sends through its nets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engines.s3gen.noise import F32
from engines.s3gen.runtime import Runtime, WaveformRuntime
from engines.s3gen.streaming.decode_times import DecodeTimes
from engines.s3gen.streaming.segment_decoder import SegmentDecoder, window_tokens, window_work
from engines.s3gen.streaming.windows import Window

Grow = Callable[[Window], Window]

# Padding a short row to a long one wastes the difference; beyond this it is cheaper to run two batches.
_MAX_PADDING_RATIO = 1.3
_PATIENCE_S = 1.0  # so long a first window lets streams go first that would run dry
_CERTAIN_RATIO = 0.75  # expected times err: what is late even if they are so much shorter is surely late


@dataclass(frozen=True)
class Decoded:
    """A window's final samples, the window as it was decoded in the end, how long it waited for the device and how long
    the device took."""

    samples: F32
    window: Window
    queue_s: float
    decode_s: float


@dataclass(eq=False)
class Job:
    """One window and whoever awaits it; times are on the event loop's clock."""

    decoder: SegmentDecoder
    window: Window
    result: asyncio.Future[Decoded]
    submitted_s: float
    deadline_s: float  # when its samples should be there
    grow: Grow | None = None  # the same window with what has come since
    retried: bool = False
    start_by_s: float = 0.0  # set by the queue, as what follows: the latest time to begin
    tokens: int = 0  # that go through the flow: its shape
    work: int = 0  # what it costs, in the unit of DecodeTimes

    def late(self, ready_s: float) -> bool:
        """Whether its listener hears a gap if it is ready only then; a first window is always awaited."""
        return self.window.index > 0 and ready_s > self.deadline_s

    def urgency(self, now_s: float) -> tuple[int, float]:
        """Smaller goes first: who would run dry or has waited too long, then first windows, then those with time."""
        kind = 0 if self.start_by_s <= now_s else 1 if self.window.index == 0 else 2
        return kind, self.start_by_s


class WindowQueue:
    """What waits; bounded by the streams, each of which has one window at a time."""

    def __init__(self, runtime: Runtime | WaveformRuntime, times: DecodeTimes, max_batch: int) -> None:
        self._runtime, self._times, self._max_batch = runtime, times, max_batch
        self._waiting: list[Job] = []  # in order of arrival

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, job: Job) -> None:
        self.measure(job)
        self._waiting.append(job)

    def drop(self, job: Job) -> None:
        """Idempotent."""
        if job in self._waiting:
            self._waiting.remove(job)

    def clear(self) -> list[Job]:
        """Drop everything; what was dropped."""
        dropped, self._waiting = self._waiting, []
        return dropped

    def measure(self, job: Job) -> None:
        """What the job's window costs, and when to begin with it."""
        job.tokens = window_tokens(self._runtime, job.decoder, job.window)
        job.work = window_work(self._runtime, job.decoder, job.window)
        if job.window.index == 0:
            job.start_by_s = job.deadline_s + _PATIENCE_S
            return
        # a call may just have begun, and a window rarely goes alone
        rows = self._times.worthwhile_rows(job.work, self._max_batch)
        job.start_by_s = job.deadline_s - 2.0 * self._times.call_s(rows * job.work)

    def take(self, now_s: float) -> list[Job]:
        """The most urgent window, grown to what is there by now, and the most urgent others that may share its call."""
        for job in self._waiting:
            if job.grow is not None:
                job.window = job.grow(job.window)
                self.measure(job)
        ordered = sorted(self._waiting, key=lambda job: job.urgency(now_s))
        batch = ordered[:1]
        for job in ordered[1:]:
            if self._may_share(batch, job, now_s):
                batch.append(job)
        for job in batch:
            self._waiting.remove(job)
        return batch

    def _may_share(self, batch: Sequence[Job], job: Job, now_s: float) -> bool:
        """Whether a call of `batch` and `job` saves time, pads little, and makes none of `batch` late."""
        rows = [*batch, job]
        if len(rows) > self._times.worthwhile_rows(max(row.work for row in rows), self._max_batch):
            return False
        if max(row.tokens for row in rows) > _MAX_PADDING_RATIO * min(row.tokens for row in rows):
            return False
        before_s = now_s + self._times.call_s(sum(row.work for row in batch))
        after_s = now_s + self._times.call_s(sum(row.work for row in rows))
        return not any(row.late(after_s) and not row.late(before_s) for row in batch)

    def surely_late(self, running: Sequence[Job], busy_s: float, now_s: float) -> bool:
        """Whether the listener of a window that waits, or that runs for `busy_s` more, will surely hear a gap."""
        waiting = ((job, busy_s + self._times.call_s(job.work)) for job in self._waiting)
        return any(
            job.late(now_s + _CERTAIN_RATIO * in_s) for job, in_s in (*waiting, *((job, busy_s) for job in running))
        )
