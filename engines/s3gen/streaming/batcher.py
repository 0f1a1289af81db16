"""Windows of many streams -> one S3Gen call, earliest deadline first.

Owns the queue and the one worker that the runtime is called from; knows nothing of text, sessions or players.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from engines.api import NULL_OBSERVER, Observer
from engines.errors import EngineFailure
from engines.model_spec import MEL_FRAMES_PER_TOKEN
from engines.s3gen.noise import F32
from engines.s3gen.runtime import CachedRuntime, Runtime, WaveformRuntime
from engines.s3gen.streaming.decode_times import DecodeTimes
from engines.s3gen.streaming.guards import WindowRejected
from engines.s3gen.streaming.segment_decoder import SegmentDecoder, decode_windows
from engines.s3gen.streaming.window_queue import Decoded, Grow, Job, WindowQueue
from engines.s3gen.streaming.windows import Window
from engines.voice import Voice

log = logging.getLogger(__name__)

Results = list[F32 | WindowRejected]


Execute = Callable[[Sequence[Job]], Awaitable[Results]]

_CALIBRATION_ROWS, _CALIBRATION_HOP = 4, 25
_OVERLOADED_S = 1.0  # how long after a late window the device counts as overloaded


class WindowBatcher:
    """Decodes windows, several at a time; a stream's companions change its samples by float rounding at most.

    `execute` runs a batch somewhere; the default calls the runtime on a worker thread of its own. A window whose
    result a guard rejects is decoded once more, alone, on `reference` (the runtime itself if none is given).
    """

    def __init__(
        self,
        runtime: Runtime | WaveformRuntime,
        *,
        max_batch: int,
        reference: Runtime | None = None,
        execute: Execute | None = None,
        observer: Observer = NULL_OBSERVER,
        times: DecodeTimes | None = None,
    ) -> None:
        self._observer = observer
        self.times = times or DecodeTimes()
        self._runtime = runtime
        self._reference = reference or runtime
        self._max_batch = max_batch
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="s3gen")
        self._execute = execute or self._execute_on_worker
        self._queue = WindowQueue(runtime, self.times, max_batch)
        self._loop_task: asyncio.Task[None] | None = None
        self._closed = False
        self._running: Sequence[Job] = ()
        self._free_at_s = -math.inf  # when the running call is expected to end
        self._last_late_s = -math.inf

    @property
    def runtime(self) -> Runtime | WaveformRuntime:
        """What windows are decoded on."""
        return self._runtime

    @property
    def waiting_windows(self) -> int:
        return len(self._queue)

    def call_s(self, recomputed_tokens: int, block_tokens: int, streams: int) -> float:
        """Expected seconds of a call with as many windows as share one when so many streams are made.

        recomputed_tokens: the voice's prompt and the left context
        block_tokens: new tokens and lookahead
        """
        work = self._work(recomputed_tokens, block_tokens)
        return self.times.call_s(work * min(streams, self.times.worthwhile_rows(work, self._max_batch)))

    def queue_s(self, recomputed_tokens: int, block_tokens: int, windows: int, now_s: float) -> float:
        """Expected seconds until so many windows of that size are decoded, what runs now included."""
        work = self._work(recomputed_tokens, block_tokens)
        return max(0.0, self._free_at_s - now_s) + self.times.rows_s(windows, work, self._max_batch)

    def _work(self, recomputed_tokens: int, block_tokens: int) -> int:
        return 2 * block_tokens + (0 if isinstance(self._runtime, CachedRuntime) else recomputed_tokens)

    def overloaded(self, now_s: float) -> bool:
        """Whether streams run dry, or the next one will: another one would only make it worse."""
        if now_s - self._last_late_s < _OVERLOADED_S:
            return True
        return self._queue.surely_late(self._running, max(0.0, self._free_at_s - now_s), now_s)

    async def decode(
        self, decoder: SegmentDecoder, window: Window, deadline_s: float, grow: Grow | None = None
    ) -> Decoded:
        """Decode a window. `deadline_s`, on the event loop's clock, is when its samples should be there; it orders the
        queue, and missing it tells the admission side. `grow` is asked for a larger window while this one waits.

        Cancelling the call drops the window if it still waits. Raises EngineFailure when it cannot be decoded.
        """
        if self._closed:
            raise EngineFailure("the engine was closed")
        loop = asyncio.get_running_loop()
        job = Job(decoder, window, loop.create_future(), loop.time(), deadline_s, grow)
        self._queue.add(job)
        if self._loop_task is None:
            self._loop_task = asyncio.create_task(self._drain(), name="s3gen-batcher")
        try:
            return await job.result
        finally:
            self._queue.drop(job)

    async def calibrate(self, voice: Voice) -> None:
        """Measure what windows save by sharing a call. To be called while nothing else runs."""
        if self._max_batch < _CALIBRATION_ROWS:
            return
        clock, best_s = asyncio.get_running_loop().time, {1: math.inf, _CALIBRATION_ROWS: math.inf}
        short = _with_prompt(voice, _CALIBRATION_HOP)
        for rows in (1, _CALIBRATION_ROWS) * 2:  # the first of each pays for first use
            batch = [self._calibration_job(short) for _ in range(rows)]
            started_s = clock()
            await self._execute(batch)
            best_s[rows] = min(best_s[rows], clock() - started_s)
        self.times.calibrate(batch[0].work, best_s[1], _CALIBRATION_ROWS, best_s[_CALIBRATION_ROWS])

    def _calibration_job(self, voice: Voice) -> Job:
        decoder = SegmentDecoder(voice, seed=0)
        decoder.speech_tokens = list(range(_CALIBRATION_HOP))
        window = Window(0, 0, 0, _CALIBRATION_HOP, _CALIBRATION_HOP, is_last=True)
        job = Job(decoder, window, asyncio.get_running_loop().create_future(), 0.0, math.inf)
        self._queue.measure(job)
        return job

    async def close(self) -> None:
        """Fail what waits, let the running batch end, stop the worker."""
        self._closed = True
        for job in self._queue.clear():
            _settle(job, EngineFailure("the engine was closed"))
        if self._loop_task is not None:
            await self._loop_task
        self._worker.shutdown()

    async def _drain(self) -> None:
        # One task per busy spell: it ends with the queue, so an idle engine holds no task.
        try:
            while batch := self._queue.take(asyncio.get_running_loop().time()):
                await self._run(batch)
        finally:
            self._loop_task = None

    async def _run(self, batch: Sequence[Job]) -> None:
        clock = asyncio.get_running_loop().time
        started_s, work = clock(), sum(job.work for job in batch)
        self._running, self._free_at_s = batch, started_s + self.times.call_s(work)
        self._observer.batch_ran(len(batch))
        try:
            results = await self._execute(batch)
        except Exception as error:
            await self._run_apart(batch, error)
            return
        finally:
            self._running = ()
        ended_s = clock()
        self.times.observe(work, ended_s - started_s)
        again = []
        for job, outcome in zip(batch, results, strict=True):
            if isinstance(outcome, WindowRejected) and not job.retried:
                log.warning("%s; decoding it once more on the reference path", outcome)
                self._observer.window_rejected(self._runtime.name)
                job.retried = True
                again.append(job)
                continue
            if job.late(ended_s):
                self._last_late_s = ended_s
            if isinstance(outcome, WindowRejected):
                _settle(job, outcome)
            else:
                _settle(job, Decoded(outcome, job.window, started_s - job.submitted_s, ended_s - started_s))
        for job in again:
            await self._run([job])

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


def _with_prompt(voice: Voice, tokens: int) -> Voice:
    """The voice with the first tokens of its S3Gen prompt."""
    mel = voice.s3gen_prompt_mel[: tokens * MEL_FRAMES_PER_TOKEN]
    return replace(voice, s3gen_prompt_tokens=voice.s3gen_prompt_tokens[:tokens], s3gen_prompt_mel=mel)
