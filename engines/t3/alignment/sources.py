"""Where the attention of a running segment comes from: T3's own steps, or a teacher-forced pass beside them."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from engines.device import PLAIN_THREAD, DeviceThread
from engines.errors import EngineFailure
from engines.model_spec import SPEECH_CODES
from engines.t3.alignment.constrained import ConstrainedTap
from engines.t3.alignment.memory import PREFIX_BYTES
from engines.t3.alignment.tap import F32, AlignmentHeads, AlignmentTap
from engines.t3.backend import T3Request
from engines.t3.kv_cache import KvSlot, PrefixCache
from engines.t3.load import TorchNet
from engines.t3.net import Span
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


@dataclass(eq=False)
class _Forced:
    """A segment of which the net has read the prompt and `read` speech tokens."""

    request: T3Request
    tap: AlignmentTap
    slot: KvSlot
    read: int = 0


@dataclass(frozen=True)
class _Job:
    segment: _Forced
    speech_tokens: list[int]
    result: Future[F32] = field(default_factory=Future)


class ForcedAligner:
    """As words.source.Aligner, for any T3 backend: a net of its first layers reads the speech tokens again.

    A pass reads all tokens that came since the last one, of all segments that wait, so that it costs a small part of
    the steps that made them. It runs on a thread of its own.
    """

    def __init__(
        self,
        net: TorchNet,
        heads: AlignmentHeads,
        on_device: DeviceThread = PLAIN_THREAD,
        prefix_cache_bytes: int = PREFIX_BYTES,
    ) -> None:
        """`net` has at least the heads' layers."""
        self._net, self._heads, self._device = net, heads, on_device
        self._prefixes = PrefixCache(prefix_cache_bytes)
        self._waiting: deque[_Job] = deque()
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "t3-align", initializer=on_device.start)
        # starts it: a thread's first step on a GPU waits for the whole device, which must not happen while one serves
        self._thread.submit(lambda: None).result()
        self.passes = 0  # in all

    def start(self, request: T3Request, *, guarded: bool = False) -> tuple[T3Request, AttentionSource]:
        """As Aligner.start."""
        tap = AlignmentTap(self._heads, len(request.text_tokens))
        return request, _ForcedSource(self, _Forced(request, tap, self._net.new_slot(self._net.max_positions)))

    async def read(self, segment: _Forced, speech_tokens: list[int]) -> F32:
        """The attention of a segment's next speech tokens. Raises EngineFailure."""
        job = _Job(segment, speech_tokens)
        with self._lock:
            self._waiting.append(job)
        self._thread.submit(self._run)
        return await asyncio.wrap_future(job.result)

    def _run(self) -> None:
        with self._lock:
            jobs = [job for job in self._waiting if job.result.set_running_or_notify_cancel()]
            self._waiting.clear()
        if not jobs:
            return
        try:
            with self._device.working("a pass of T3 for word times"), torch.inference_mode():
                self._read_prompts([job.segment for job in jobs if not job.segment.tap.begun])
                self._read_speech(jobs)
        except Exception as error:
            self._device.failed(error)
            failure = EngineFailure(f"The alignment failed: {error!r}")
            failure.__cause__ = error
            for job in jobs:
                job.result.set_exception(failure)
            return
        for job in jobs:
            read, rows = job.segment.read, len(job.speech_tokens)
            job.result.set_result(job.segment.tap.attention(read - rows, read))

    def _read_prompts(self, segments: Sequence[_Forced]) -> None:
        for segment in segments:  # one by one, because a prompt is long
            voice = segment.request.voice
            context, unguided = segment.request.context, replace(segment.request.sampling, cfg_weight=0.0)
            prompt = self._net.embed_prompt(voice, segment.request.text_tokens, context, sampling=unguided)
            segment.slot.reserve(len(prompt))
            cached = self._prefixes.get(voice.key)
            if cached is not None:
                segment.slot.load(cached)
                segment.slot.length -= len(context)
            start, prefix = segment.slot.length, self._net.prefix_positions(voice)
            self._net.forward(prompt[start:], [Span(segment.slot, start, len(prompt) - start)])
            segment.slot.length = len(prompt)
            if not context and self._prefixes.wants(voice.key):
                self._prefixes.put(voice.key, segment.slot.copy_out(prefix))
            segment.tap.begin(segment.slot, self._net.text_start(voice))

    def _read_speech(self, jobs: Sequence[_Job]) -> None:
        spans, embedded = [], []
        for job in jobs:
            slot, rows, read = job.segment.slot, len(job.speech_tokens), job.segment.read
            embedded.append(self._net.embed_speech(job.speech_tokens, range(read + 1, read + rows + 1)))
            slot.reserve(slot.length + rows)
            spans.append(Span(slot, slot.length, rows, job.segment.tap))
        self._net.forward(torch.cat(embedded), spans)
        self.passes += 1
        for span, job in zip(spans, jobs, strict=True):
            span.slot.length += span.rows
            job.segment.read += span.rows

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)


class _ForcedSource:
    batch_tokens = 8  # a pass over one token costs almost as much as over these

    def __init__(self, aligner: ForcedAligner, segment: _Forced) -> None:
        self._aligner, self._segment, self._asked = aligner, segment, 0

    async def rows(self, speech_tokens: Sequence[int]) -> F32:
        """As AttentionSource.rows."""
        new = [token for token in speech_tokens[self._asked :] if token < SPEECH_CODES]
        if not new:
            return np.zeros((0, len(self._segment.request.text_tokens)), np.float32)
        self._asked += len(new)
        return await self._aligner.read(self._segment, new)

    def close(self) -> None:
        """The memory is freed with the source."""
