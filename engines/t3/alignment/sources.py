"""Where the attention of a running segment comes from: T3's own steps, or a teacher-forced pass beside them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from engines.device import PLAIN_THREAD, DeviceThread, wait_until_done
from engines.errors import EngineFailure
from engines.model_spec import SPEECH_CODES
from engines.t3.alignment.constrained import ConstrainedTap
from engines.t3.alignment.lent import LentNet
from engines.t3.alignment.reader import ReadSegment, SegmentReader, ToRead
from engines.t3.alignment.tap import F32, AlignmentHeads, AlignmentTap
from engines.t3.backend import T3Request
from engines.t3.load import TorchNet
from engines.words.source import AttentionSource


class TappedAligner:
    """As words.source.Aligner, for a T3 backend whose net calls taps: the queries of its own steps are kept."""

    def __init__(self, heads: AlignmentHeads, *, constrained: bool = False) -> None:
        """`constrained`: whether the heads of guarded segments look at the place that is being spoken only."""
        self._heads, self._constrained = heads, constrained

    def start(self, request: T3Request, *, guarded: bool = False) -> tuple[T3Request, AttentionSource]:
        kind = ConstrainedTap if guarded and self._constrained else AlignmentTap
        tap = kind(self._heads, len(request.text_tokens))
        return replace(request, tap=tap), _TappedSource(tap)

    def close(self) -> None:
        """Nothing to free."""


class _TappedSource:
    batch_tokens = 1

    def __init__(self, tap: AlignmentTap) -> None:
        self._tap, self._taken = tap, 0

    async def rows(self, speech_tokens: Sequence[int]) -> F32:
        """As AttentionSource.rows."""
        start, self._taken = self._taken, max(self._taken, min(self._tap.rows, len(speech_tokens)))
        return self._tap.attention(start, self._taken)

    def close(self) -> None:
        """Nothing to free: the tap is the request's."""


@dataclass(frozen=True)
class _Job:
    to_read: ToRead
    result: Future[F32] = field(default_factory=Future)


class ForcedAligner:
    """As words.source.Aligner, for any T3 backend: a net of its first layers reads the speech tokens again.

    A pass reads all tokens that came since the last one, of all segments that wait, so that it costs a small part of
    the steps that made them. It runs on a thread of its own, and waits while there is no net.
    """

    def __init__(
        self, nets: LentNet, heads: AlignmentHeads, positions: int, on_device: DeviceThread = PLAIN_THREAD
    ) -> None:
        """The net has at least the heads' layers. `positions`: of the longest sequence."""
        self._nets, self._device = nets, on_device
        self.reader = SegmentReader(heads, positions)
        self._waiting: deque[_Job] = deque()
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "t3-align", initializer=on_device.start)
        # starts it: a thread's first step on a GPU waits for the whole device, which must not happen while one serves
        self._thread.submit(lambda: None).result()

    @property
    def passes(self) -> int:
        """Over speech, in all."""
        return self.reader.passes

    def start(self, request: T3Request, *, guarded: bool = False) -> tuple[T3Request, AttentionSource]:
        """As Aligner.start."""
        return request, _ForcedSource(self, ReadSegment(request))

    async def read(self, segment: ReadSegment, speech_tokens: list[int]) -> F32:
        """The attention of a segment's next speech tokens. Raises EngineFailure."""
        job = _Job(ToRead(segment, speech_tokens))
        with self._lock:
            self._waiting.append(job)
        self._thread.submit(self._run)
        return await asyncio.wrap_future(job.result)

    def forget(self, segment: ReadSegment) -> None:
        """Free what is kept of a segment, behind the pass that runs. Idempotent, also after `close`."""
        with contextlib.suppress(RuntimeError):  # of a thread that has ended
            self._thread.submit(self.reader.forget, segment)

    def _run(self) -> None:
        with self._lock:
            jobs = [job for job in self._waiting if job.result.set_running_or_notify_cancel()]
            self._waiting.clear()
        if not jobs:
            return
        try:
            found = self._nets.call(lambda net: self._read(net, [job.to_read for job in jobs]))
        except Exception as error:
            self._device.failed(error)
            failure = EngineFailure(f"The alignment failed: {error!r}")
            failure.__cause__ = error
            for job in jobs:
                job.result.set_exception(failure)
            return
        for job, rows in zip(jobs, found, strict=True):
            job.result.set_result(rows)

    def _read(self, net: TorchNet, jobs: list[ToRead]) -> list[F32]:
        # inside the use of the net: T3's engine is built while nothing else computes
        with self._device.working("a pass of T3 for word times"), torch.inference_mode():
            try:
                return self.reader.read(net, jobs)
            finally:
                wait_until_done(net.device)

    def close(self) -> None:
        """End the thread."""
        self._nets.end()
        self._thread.shutdown(wait=True, cancel_futures=True)


class _ForcedSource:
    batch_tokens = 8  # a pass over one token costs almost as much as over these

    def __init__(self, aligner: ForcedAligner, segment: ReadSegment) -> None:
        self._aligner, self._segment, self._asked = aligner, segment, 0

    async def rows(self, speech_tokens: Sequence[int]) -> F32:
        """As AttentionSource.rows."""
        new = [token for token in speech_tokens[self._asked :] if token < SPEECH_CODES]
        if not new:
            return np.zeros((0, len(self._segment.request.text_tokens)), np.float32)
        self._asked += len(new)
        return await self._aligner.read(self._segment, new)

    def close(self) -> None:
        """Free the segment's keys and values."""
        self._aligner.forget(self._segment)
