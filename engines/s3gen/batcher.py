"""Windows of many streams -> one S3Gen call, earliest deadline first.

Owns the queue and the one worker that the runtime is called from; knows nothing of text, sessions or players.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from engines.api import NOBODY, Observer
from engines.errors import EngineFailure
from engines.s3gen.guards import WindowRejected
from engines.s3gen.noise import F32
from engines.s3gen.runtime import CachedRuntime, Runtime
from engines.s3gen.segment_decoder import SegmentDecoder, decode_windows, window_tokens
from engines.s3gen.windows import Window

log = logging.getLogger(__name__)

Results = list[F32 | WindowRejected]


@dataclass(frozen=True)
class Decoded:
    """A window's final samples, how long it waited for the device and how long the device took."""

    samples: F32
    queue_s: float
    decode_s: float


Execute = Callable[[Sequence["Job"]], Awaitable[Results]]

# Padding a short row to a long one wastes the difference; beyond this it is cheaper to run two batches.
_MAX_PADDING_RATIO = 1.3
_OVERLOADED_S = 1.0  # how long after a late window the device counts as overloaded
_SMOOTHING = 0.2  # weight of the newest measurement


@dataclass(order=True)
class Job:
    """One window waiting for the runtime; ordered by deadline, then by arrival."""

    deadline_s: float
    arrival: int
    decoder: SegmentDecoder = field(compare=False)
    window: Window = field(compare=False)
    result: asyncio.Future[Decoded] = field(compare=False)
    tokens: int = field(compare=False)  # that the call works on
    submitted_s: float = field(compare=False)
    retried: bool = field(compare=False, default=False)


class DecodeTimes:
    """What decoding has cost lately: a straight line through (tokens of a call, seconds), and the wait before it."""

    def __init__(self) -> None:
        self._weight = 0.0
        self._tokens = self._seconds = self._square = self._product = 0.0  # running means
        self._wait_s = 0.0

    def observe(self, tokens: int, seconds: float, wait_s: float) -> None:
        """A call on rows of up to `tokens` tokens took `seconds` after its windows had waited for `wait_s`."""
        self._weight += _SMOOTHING * (1.0 - self._weight)
        share = _SMOOTHING / self._weight  # the first measurement counts whole, later ones less and less
        self._tokens += share * (tokens - self._tokens)
        self._seconds += share * (seconds - self._seconds)
        self._square += share * (tokens * tokens - self._square)
        self._product += share * (tokens * seconds - self._product)
        self._wait_s += share * (wait_s - self._wait_s)

    def expected_s(self, tokens: int) -> float:
        """Expected seconds until the samples of a window of that many tokens are there; 0 while nothing is known."""
        spread = self._square - self._tokens**2
        together = self._product - self._tokens * self._seconds
        proportional = self._seconds / max(self._tokens, 1.0)
        slope = min(proportional, max(0.0, together / spread)) if spread > 1.0 else proportional
        return self._wait_s + self._seconds + slope * (tokens - self._tokens)


class WindowBatcher:
    """Decodes windows, several at a time; a stream's companions change its samples by float rounding at most.

    `execute` runs a batch somewhere; the default calls the runtime on a worker thread of its own. A window whose
    result a guard rejects is decoded once more, alone, on `reference` (the runtime itself if none is given).
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        max_batch: int,
        reference: Runtime | None = None,
        execute: Execute | None = None,
        observer: Observer = NOBODY,
    ) -> None:
        self._observer = observer
        self.times = DecodeTimes()
        self._runtime = runtime
        self._reference = reference or runtime
        self._max_batch = max_batch
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="s3gen")
        self._execute = execute or self._execute_on_worker
        self._waiting: list[Job] = []
        self._arrivals = itertools.count()
        self._loop_task: asyncio.Task[None] | None = None
        self._closed = False
        self._last_late_s = -math.inf

    @property
    def runtime(self) -> Runtime:
        """What windows are decoded on."""
        return self._runtime

    @property
    def waiting_windows(self) -> int:
        return len(self._waiting)

    def expected_s(self, prompt_tokens: int, context_tokens: int, block_tokens: int) -> float:
        """Expected seconds until a window is decoded that is submitted now: its new tokens and lookahead in a block
        behind so much prompt and left context."""
        recomputed = 0 if isinstance(self._runtime, CachedRuntime) else prompt_tokens + context_tokens
        return self.times.expected_s(recomputed + block_tokens)

    def overloaded(self, now_s: float) -> bool:
        """Whether streams are running dry right now: another one would only make it worse."""
        return now_s - self._last_late_s < _OVERLOADED_S

    async def decode(self, decoder: SegmentDecoder, window: Window, deadline_s: float) -> Decoded:
        """Decode a window. `deadline_s` is on the event loop's clock and only orders the queue.

        Cancelling the call drops the window if it still waits. Raises EngineFailure when it cannot be decoded.
        """
        if self._closed:
            raise EngineFailure("the engine was closed")
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Decoded] = loop.create_future()
        tokens = window_tokens(self._runtime, decoder, window)
        job = Job(deadline_s, next(self._arrivals), decoder, window, result, tokens, loop.time())
        self._waiting.append(job)
        if self._loop_task is None:
            self._loop_task = asyncio.create_task(self._drain(), name="s3gen-batcher")
        try:
            return await result
        finally:
            if job in self._waiting:
                self._waiting.remove(job)

    async def close(self) -> None:
        """Fail what waits, let the running batch end, stop the worker."""
        self._closed = True
        for job in self._waiting:
            _settle(job, EngineFailure("the engine was closed"))
        self._waiting.clear()
        if self._loop_task is not None:
            await self._loop_task
        self._worker.shutdown()

    async def _drain(self) -> None:
        # One task per busy spell: it ends with the queue, so an idle engine holds no task.
        try:
            while batch := self._take_batch():
                await self._run(batch)
        finally:
            self._loop_task = None

    def _take_batch(self) -> list[Job]:
        """The most urgent window and the most urgent others that fit it without much padding."""
        if not self._waiting:
            return []
        ordered = sorted(self._waiting)
        shortest = longest = ordered[0].tokens
        batch: list[Job] = []
        for job in ordered:
            low, high = min(shortest, job.tokens), max(longest, job.tokens)
            if high <= low * _MAX_PADDING_RATIO:
                batch.append(job)
                shortest, longest = low, high
            if len(batch) == self._max_batch:
                break
        for job in batch:
            self._waiting.remove(job)
        return batch

    async def _run(self, batch: Sequence[Job]) -> None:
        clock = asyncio.get_running_loop().time
        started_s = clock()
        self._observer.batch_ran(len(batch))
        try:
            results = await self._execute(batch)
        except Exception as error:
            await self._run_apart(batch, error)
            return
        wait_s = sum(started_s - job.submitted_s for job in batch) / len(batch)
        self.times.observe(max(job.tokens for job in batch), clock() - started_s, wait_s)
        for job, outcome in zip(batch, results, strict=True):
            if isinstance(outcome, WindowRejected) and not job.retried:
                log.warning("%s; decoding it once more on the reference path", outcome)
                self._observer.window_rejected(self._runtime.name)
                job.retried = True
                await self._run([job])
            else:
                now_s = clock()
                self._note_lateness(job, now_s)
                if isinstance(outcome, WindowRejected):
                    _settle(job, outcome)
                else:
                    _settle(job, Decoded(outcome, started_s - job.submitted_s, now_s - started_s))

    def _note_lateness(self, job: Job, now_s: float) -> None:
        if job.window.index > 0 and now_s > job.deadline_s:  # a first window is always awaited
            self._last_late_s = now_s

    async def _run_apart(self, batch: Sequence[Job], error: Exception) -> None:
        """A batch failed as a whole: decode its windows one by one, so that only the culprit fails."""
        if len(batch) == 1:
            log.warning("a window could not be decoded: %r", error)
            failure = EngineFailure(f"S3Gen failed: {error}")
            failure.__cause__ = error
            _settle(batch[0], failure)
            return
        log.warning("a batch of %d windows failed (%r); decoding them one by one", len(batch), error)
        for job in batch:
            await self._run([job])

    async def _execute_on_worker(self, batch: Sequence[Job]) -> Results:
        work = [(job.decoder, job.window) for job in batch]
        runtime = self._reference if any(job.retried for job in batch) else self._runtime
        decode = partial(decode_windows, runtime, work, self._observer.stage_ran)
        return await asyncio.get_running_loop().run_in_executor(self._worker, decode)


def _settle(job: Job, outcome: Decoded | EngineFailure) -> None:
    if job.result.done():  # cancelled while the batch ran
        return
    if isinstance(outcome, EngineFailure):
        job.result.set_exception(outcome)
    else:
        job.result.set_result(outcome)
