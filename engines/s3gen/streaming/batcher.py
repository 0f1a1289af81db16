"""The batcher: windows of many streams -> S3Gen calls, earliest deadline first.

Owns the queue and the one worker thread that calls the runtime.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

from engines.api import NULL_OBSERVER, Observer
from engines.device import PLAIN_THREAD, DeviceThread
from engines.errors import EngineFailure
from engines.model_spec import MEL_FRAMES_PER_TOKEN
from engines.s3gen.noise import F32
from engines.s3gen.runtime import CachedRuntime, Runtime, SubmittingRuntime, WaveformRuntime
from engines.s3gen.streaming.decode_times import CPU_CALIBRATION, Calibration, DecodeForecast, DecodeTimes
from engines.s3gen.streaming.flight import Flight
from engines.s3gen.streaming.guards import WindowRejected
from engines.s3gen.streaming.segment_decoder import SegmentDecoder, decode_windows
from engines.s3gen.streaming.window_queue import Decoded, DecodeRequest, Enlargeable, WindowQueue
from engines.s3gen.streaming.windows import Window
from engines.voice import Voice

log = logging.getLogger(__name__)

T = TypeVar("T")
Results = list[F32 | WindowRejected]
Execute = Callable[[Sequence[DecodeRequest]], Awaitable[Results]]

_CALIBRATION_HOP = 25
_OVERLOADED_S = 1.0  # how long after a late window the device counts as overloaded
_CLOSED = "The engine was closed."


class WindowBatcher:
    """Decodes windows, several in one call; batching changes a stream's samples by float rounding at most.

    `execute` runs a batch; the default calls the runtime on a worker thread of its own. A window whose result a guard
    rejects is decoded once more, alone, on `reference` (by default the runtime itself).
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
        on_device: DeviceThread = PLAIN_THREAD,
        calibration: Calibration = CPU_CALIBRATION,
    ) -> None:
        self._calibration = calibration
        self._device = on_device
        self._observer = observer
        self.times = times or DecodeTimes()
        self.forecast = DecodeForecast(self.times, max_batch, cached=isinstance(runtime, CachedRuntime))
        self._runtime = runtime
        self._reference = reference or runtime
        self._max_batch = max_batch
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="s3gen", initializer=on_device.start)
        self._execute = execute or self._execute_on_worker
        # what decodes batches in flight; None with an `execute` of the caller's
        self._pipelined = runtime if execute is None and not isinstance(runtime, CachedRuntime) else None
        self._queue = WindowQueue(runtime, self.times, max_batch)
        self._loop_task: asyncio.Task[None] | None = None
        self._closed, self._users = False, 1
        self._running: Sequence[DecodeRequest] = ()
        self._last_late_s = self._landed_s = -math.inf

    @property
    def runtime(self) -> Runtime | WaveformRuntime:
        """The runtime that decodes windows."""
        return self._runtime

    def shared(self) -> WindowBatcher:
        """This batcher for one more engine, which closes it too; the last one to do so ends it."""
        self._users += 1
        return self

    @property
    def waiting_windows(self) -> int:
        return len(self._queue)

    def overloaded(self, now_s: float) -> bool:
        """Whether streams run dry or soon will: another stream would only make it worse."""
        if now_s - self._last_late_s < _OVERLOADED_S:
            return True
        return self._queue.will_miss_deadline(self._running, self.forecast.busy_s(now_s), now_s)

    async def decode(
        self, decoder: SegmentDecoder, window: Window, deadline_s: float, plan: Enlargeable | None = None
    ) -> Decoded:
        """Decode a window. Cancelling the call drops the window if it still waits.

        deadline_s: when its samples should be ready, on the event loop's clock; it orders the queue, and a miss makes
            the device count as overloaded
        plan: enlarges the window while it waits

        Raises EngineFailure if it cannot be decoded.
        """
        if self._closed:
            raise EngineFailure(_CLOSED)
        loop = asyncio.get_running_loop()
        request = DecodeRequest(decoder, window, loop.create_future(), loop.time(), deadline_s, plan)
        self._queue.add(request)
        if self._loop_task is None:
            self._loop_task = asyncio.create_task(self._drain(), name="s3gen-batcher")
        try:
            return await request.result
        finally:
            self._queue.drop(request)

    async def calibrate(self, voice: Voice) -> None:
        """Measure how much windows save by sharing a call. Call it while nothing else runs."""
        given, clock = self._calibration, asyncio.get_running_loop().time
        best_s = {rows: math.inf for rows in given.rows if rows <= self._max_batch}
        if len(best_s) < 2:
            return
        voice = _with_prompt(voice, given.prompt_tokens)
        for turn in range(given.steady_after + given.turns):
            for rows in best_s:
                batch = [self._calibration_request(voice) for _ in range(rows)]
                started_s = clock()
                await self._execute(batch)
                if turn >= given.steady_after:
                    best_s[rows] = min(best_s[rows], clock() - started_s)
        self.times.calibrate(batch[0].work, best_s)

    def _calibration_request(self, voice: Voice) -> DecodeRequest:
        decoder = SegmentDecoder(voice, seed=0, speech_tokens=list(range(_CALIBRATION_HOP)))
        window = Window(0, 0, 0, _CALIBRATION_HOP, _CALIBRATION_HOP, is_last=True)
        request = DecodeRequest(decoder, window, asyncio.get_running_loop().create_future(), 0.0, math.inf)
        self._queue.measure(request)
        return request

    async def close(self) -> None:
        """Fail the waiting requests, let the running batch end, stop the worker; nothing while other engines use it."""
        self._users -= 1
        if self._users > 0:
            return
        self._closed = True
        for request in self._queue.clear():
            _settle(request, EngineFailure(_CLOSED))
        if self._loop_task is not None:
            await self._loop_task
        self._worker.shutdown()

    async def _drain(self) -> None:
        # One task per busy period: it ends with the queue, so an idle engine holds no task.
        clock = asyncio.get_running_loop().time
        try:
            last: _Flying | None = None  # its vocoder is started
            while (batch := self._queue.next_batch(clock())) or last is not None:
                following = await self._take_off(batch, last) if batch else None
                if last is not None:
                    await self._land(last)
                last = None if following is None else await self._cross(following)
        finally:
            self._loop_task = None

    async def _take_off(self, batch: Sequence[DecodeRequest], last: _Flying | None) -> _Flying | None:
        """Start a batch behind another, or decode it whole if the runtime waits in its calls."""
        if not isinstance(self._pipelined, SubmittingRuntime):
            await self._run(batch)
            return None
        flight = Flight(self._pipelined, [(r.decoder, r.window) for r in batch], self._observer.stage_ran)
        flying = _Flying(flight, batch, asyncio.get_running_loop().time())
        self._began(batch)
        return flying if await self._fly(flying, flight.take_off) else None

    async def _cross(self, flying: _Flying) -> _Flying | None:
        return flying if await self._fly(flying, flying.flight.cross) else None

    async def _land(self, flying: _Flying) -> None:
        await self._fly(flying, lambda: flying.results.extend(flying.flight.land()))
        if flying.results:
            started_s = max(flying.started_s, self._landed_s)  # before, the device had the batch before it
            self._landed_s = asyncio.get_running_loop().time()
            await self._settle_all(flying.batch, flying.results, started_s, flying.started_s)
        self._ended(flying.batch)

    async def _fly(self, flying: _Flying, part: Callable[[], None]) -> bool:
        """A part of a flight on the worker. If it fails, its windows are decoded one by one; returns whether not."""
        try:
            with self._observer.calling("s3gen"):
                await self._on_worker(part)
        except Exception as error:
            self._device.failed(error)
            self._ended(flying.batch)
            await self._run_apart(flying.batch, error)
            return False
        return True

    def _began(self, batch: Sequence[DecodeRequest]) -> None:
        work, now_s = sum(request.work for request in batch), asyncio.get_running_loop().time()
        self._running = (*self._running, *batch)
        for request in batch:
            request.begin()
        self.forecast.free_at_s = max(now_s, self.forecast.free_at_s) + self.times.call_s(work)
        self._observer.batch_ran(len(batch))

    def _ended(self, batch: Sequence[DecodeRequest]) -> None:
        self._running = tuple(request for request in self._running if request not in batch)
        if not self._running:
            self.forecast.free_at_s = -math.inf

    async def _run(self, batch: Sequence[DecodeRequest]) -> None:
        """Decode a batch that shares the device with no other."""
        started_s = asyncio.get_running_loop().time()
        self._began(batch)
        try:
            with self._observer.calling("s3gen"):
                results = await self._execute(batch)
        except Exception as error:
            self._device.failed(error)
            self._ended(batch)
            await self._run_apart(batch, error)
            return
        self._ended(batch)
        await self._settle_all(batch, results, started_s, started_s)

    async def _settle_all(
        self, batch: Sequence[DecodeRequest], results: Results, on_device_s: float, started_s: float
    ) -> None:
        """Hand the results over. on_device_s: when the device began with the batch; started_s: when the host did"""
        ended_s = asyncio.get_running_loop().time()
        beside_t3 = any(request.beside_t3 for request in batch)
        self.times.observe(sum(request.work for request in batch), ended_s - on_device_s, beside_t3=beside_t3)
        again = []
        for request, outcome in zip(batch, results, strict=True):
            if isinstance(outcome, WindowRejected) and not request.retried:
                log.warning("%s Decoding it once more on the reference path.", outcome)
                self._observer.window_rejected(self._runtime.name)
                request.retried = True
                again.append(request)
                continue
            if request.late(ended_s):
                self._last_late_s = ended_s
            if isinstance(outcome, WindowRejected):
                _settle(request, outcome)
            else:
                decoded = Decoded(outcome, request.window, started_s - request.submitted_s, ended_s - started_s)
                _settle(request, decoded)
        for request in again:
            await self._run([request])

    async def _run_apart(self, batch: Sequence[DecodeRequest], error: Exception) -> None:
        """Decode the windows of a failed batch one by one, so that only the culprit fails."""
        if len(batch) == 1:
            log.warning("A window could not be decoded: %r", error)
            failure = EngineFailure(f"S3Gen failed: {error}")
            failure.__cause__ = error
            _settle(batch[0], failure)
            return
        log.warning("A batch of %d windows failed (%r). Decoding them one by one.", len(batch), error)
        for request in batch:
            await self._run([request])

    async def _execute_on_worker(self, batch: Sequence[DecodeRequest]) -> Results:
        work = [(request.decoder, request.window) for request in batch]
        runtime = self._reference if any(request.retried for request in batch) else self._runtime

        return await self._on_worker(lambda: decode_windows(runtime, work, self._observer.stage_ran))

    async def _on_worker(self, work: Callable[[], T]) -> T:
        def watched() -> T:
            with self._device.working("a call of S3Gen"):
                return work()

        return await asyncio.get_running_loop().run_in_executor(self._worker, watched)


@dataclass
class _Flying:
    """A batch in flight, and when its host's work began."""

    flight: Flight
    batch: Sequence[DecodeRequest]
    started_s: float
    results: Results = field(default_factory=list)


def _settle(request: DecodeRequest, outcome: Decoded | EngineFailure) -> None:
    if request.result.done():  # cancelled while the batch ran
        return
    if isinstance(outcome, EngineFailure):
        request.result.set_exception(outcome)
    else:
        request.result.set_result(outcome)


def _with_prompt(voice: Voice, tokens: int) -> Voice:
    """The voice with the first tokens of its S3Gen prompt."""
    mel = voice.s3gen_prompt_mel[: tokens * MEL_FRAMES_PER_TOKEN]
    return replace(voice, s3gen_prompt_tokens=voice.s3gen_prompt_tokens[:tokens], s3gen_prompt_mel=mel)
