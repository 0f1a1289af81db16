"""Windows of many streams -> one S3Gen call, earliest deadline first.

Owns the queue and the one worker that the runtime is called from; knows nothing of text, sessions or players.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from engines.errors import EngineFailure
from engines.s3gen.noise import F32
from engines.s3gen.runtime import Runtime
from engines.s3gen.segment_decoder import SegmentDecoder, decode_windows
from engines.s3gen.windows import Window

log = logging.getLogger(__name__)

Results = list[F32 | EngineFailure]
Execute = Callable[[Sequence["Job"]], Awaitable[Results]]

# Padding a short row to a long one wastes the difference; beyond this it is cheaper to run two batches.
_MAX_PADDING_RATIO = 1.3


@dataclass(order=True)
class Job:
    """One window waiting for the runtime; ordered by deadline, then by arrival."""

    deadline_s: float
    arrival: int
    decoder: SegmentDecoder = field(compare=False)
    window: Window = field(compare=False)
    result: asyncio.Future[F32] = field(compare=False)

    @property
    def tokens(self) -> int:
        """What the call costs: prompt and window."""
        return len(self.decoder.voice.s3gen_prompt_tokens) + self.window.tokens


class WindowBatcher:
    """Decodes windows, several at a time; a stream's companions change its samples by float rounding at most.

    `execute` runs a batch somewhere; the default calls the runtime on a worker thread of its own.
    """

    def __init__(self, runtime: Runtime, *, max_batch: int, execute: Execute | None = None) -> None:
        self._runtime = runtime
        self._max_batch = max_batch
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="s3gen")
        self._execute = execute or self._execute_on_worker
        self._waiting: list[Job] = []
        self._arrivals = itertools.count()
        self._loop_task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def waiting_windows(self) -> int:
        return len(self._waiting)

    async def decode(self, decoder: SegmentDecoder, window: Window, deadline_s: float) -> F32:
        """The window's final samples. `deadline_s` is on the event loop's clock and only orders the queue.

        Cancelling the call drops the window if it still waits. Raises EngineFailure when it cannot be decoded.
        """
        if self._closed:
            raise EngineFailure("the engine was closed")
        result: asyncio.Future[F32] = asyncio.get_running_loop().create_future()
        job = Job(deadline_s, next(self._arrivals), decoder, window, result)
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
        try:
            results = await self._execute(batch)
        except Exception as error:
            await self._run_apart(batch, error)
            return
        for job, outcome in zip(batch, results, strict=True):
            _settle(job, outcome)

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
        return await asyncio.get_running_loop().run_in_executor(self._worker, decode_windows, self._runtime, work)


def _settle(job: Job, outcome: F32 | EngineFailure) -> None:
    if job.result.done():  # cancelled while the batch ran
        return
    if isinstance(outcome, EngineFailure):
        job.result.set_exception(outcome)
    else:
        job.result.set_result(outcome)
