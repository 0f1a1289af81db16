"""Joins the stages for one stream: text -> T3 -> windows -> S3Gen -> chunks. Read `PipelineStream.speak` first.

Knows the stages' contracts, not their libraries, and nothing of RPC.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from engines.api import (
    NOBODY,
    AudioChunk,
    DeviceMemory,
    EngineInfo,
    Event,
    Observer,
    Segment,
    SegmentDone,
    SegmentStarted,
    SegmentStats,
    WindowFigures,
)
from engines.config import SAMPLE_RATE_HZ, Sampling
from engines.continuity import Listener
from engines.errors import EngineBusy, EngineFailure, InvalidInput
from engines.health import Health
from engines.s3gen.batcher import Decoded, WindowBatcher
from engines.s3gen.noise import segment_seed
from engines.s3gen.segment_decoder import SegmentDecoder
from engines.s3gen.windows import Pace, Schedule, Window, WindowPlanner
from engines.t3.backend import T3Backend, T3Request
from engines.voice.voice import Voice

_WARM_UP_TEXT = "Hello there."
_WARM_UP = Sampling(seed=1, max_speech_tokens=50)


class Encoder(Protocol):
    """Text of one segment -> text tokens; raises InvalidInput when there is nothing to say or too much."""

    def __call__(self, text: str) -> tuple[int, ...]: ...


class Builder(Protocol):
    """Reference audio -> Voice; slow, called off the event loop."""

    def build(self, audio: bytes, name: str) -> Voice: ...


@dataclass(frozen=True)
class Stages:
    """The engine's parts, shared by all its streams."""

    encode_text: Encoder
    t3: T3Backend
    s3gen: WindowBatcher
    schedule: Schedule
    observer: Observer = NOBODY


class Pipeline:
    """The real engine. Used from one event loop; the stages' own threads do the work."""

    def __init__(
        self,
        info: EngineInfo,
        stages: Stages,
        builder: Builder,
        default_voice: Voice | None,
        health: Health | None = None,
        device_memory: Callable[[], DeviceMemory | None] = lambda: None,
    ) -> None:
        self.info = info
        self.health = health or Health()
        self.device_memory = device_memory
        self.default_voice = default_voice
        self.stages = stages
        self._builder = builder
        self._streams: set[PipelineStream] = set()

    @property
    def open_streams(self) -> int:
        return len(self._streams)

    async def make_voice(self, audio: bytes, *, name: str) -> Voice:
        return await asyncio.to_thread(self._builder.build, audio, name)

    async def open(self, voice: Voice, sampling: Sampling) -> PipelineStream:
        most = self.info.limits.max_streams
        if len(self._streams) >= most:
            raise EngineBusy(f"all {most} streams of this engine are in use; retry when one has ended")
        if self._streams and self.stages.s3gen.overloaded(asyncio.get_running_loop().time()):
            raise EngineBusy("the streams that are open already run dry on this device; retry when one has ended")
        stream = PipelineStream(self.stages, voice, sampling, self._streams.discard)
        self._streams.add(stream)
        return stream

    async def warm_up(self) -> None:
        if self.default_voice is None:
            raise EngineFailure("there is no built-in voice to warm up with")
        stream = await self.open(self.default_voice, _WARM_UP)
        try:
            async for _ in stream.speak(Segment(0, _WARM_UP_TEXT)):
                pass
        finally:
            await stream.close()

    async def close(self) -> None:
        for stream in list(self._streams):
            await stream.close()
        await self.stages.s3gen.close()
        await self.stages.t3.close()


class PipelineStream:
    """One listener's stream: its utterances in the making, its place on the timeline, its listener."""

    def __init__(
        self, stages: Stages, voice: Voice, sampling: Sampling, on_closed: Callable[[PipelineStream], None]
    ) -> None:
        self.stages = stages
        self._voice = voice
        self._sampling = sampling
        self._on_closed = on_closed
        self._listener = Listener(SAMPLE_RATE_HZ)
        self._position_samples = 0
        self._current: _Utterance | None = None
        self._prepared: _Utterance | None = None
        self._to_prepare: Segment | None = None
        self._closed = False

    def prepare(self, segment: Segment) -> None:
        """T3 starts on `segment` as soon as it has finished the one being spoken."""
        self._to_prepare = segment
        if self._current is None or self._current.ended:
            self._start_prepared()

    async def speak(self, segment: Segment) -> AsyncGenerator[Event, None]:
        utterance = await self._take(segment)
        tally = _Tally(self._listener)
        planner = WindowPlanner(self.stages.schedule)
        try:
            yield SegmentStarted(segment, utterance.text_tokens)
            while (window := await utterance.next_window(planner, self._pace)) is not None:
                with tally.decoding():
                    decoded = await self.stages.s3gen.decode(utterance.decoder, window, self._deadline_s())
                tally.deliver(len(decoded.samples))
                figures = utterance.figures(window, decoded)
                yield AudioChunk(segment.index, self._position_samples, decoded.samples, figures)
                self._position_samples += len(decoded.samples)
            await utterance.cancel()
            self._current = None
            yield SegmentDone(segment, tally.stats(utterance, planner))
        finally:
            if self._current is utterance:  # ended early: what was prepared behind it is not wanted either
                await self._drop_all()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self._drop_all()
        self._on_closed(self)

    async def _drop_all(self) -> None:
        dropped = [utterance for utterance in (self._current, self._prepared) if utterance is not None]
        self._current = self._prepared = self._to_prepare = None
        for utterance in dropped:
            await utterance.cancel()

    async def _take(self, segment: Segment) -> _Utterance:
        if self._closed:
            raise EngineFailure("the stream was closed")
        prepared, self._prepared, self._to_prepare = self._prepared, None, None
        if prepared is not None and prepared.segment != segment:
            await prepared.cancel()
            prepared = None
        self._current = prepared or self._begin(segment)
        return self._current

    def _begin(self, segment: Segment) -> _Utterance:
        return _Utterance(self.stages, segment, self._voice, self._sampling, self._start_prepared)

    def _start_prepared(self) -> None:
        segment, self._to_prepare = self._to_prepare, None
        if segment is None or self._prepared is not None:
            return
        try:
            self._prepared = self._begin(segment)
        except InvalidInput:
            return  # speak() will meet the same error and tell the caller

    def _pace(self, utterance: _Utterance) -> Pace | None:
        if self._sampling.repeatable:
            return None
        return Pace(
            lead_s=self._listener.lead_s(asyncio.get_running_loop().time()),
            token_s=utterance.token_s,
            decode_s=partial(self.stages.s3gen.expected_s, len(self._voice.s3gen_prompt_tokens)),
        )

    def _deadline_s(self) -> float:
        """When the listener runs dry; at once while nothing has been heard yet."""
        now_s = asyncio.get_running_loop().time()
        return now_s + max(0.0, self._listener.lead_s(now_s))


class _Utterance:
    """One segment in the making: T3's codes arrive in its decoder by themselves while windows are decoded."""

    def __init__(
        self, stages: Stages, segment: Segment, voice: Voice, sampling: Sampling, on_ended: Callable[[], None]
    ) -> None:
        text_tokens = stages.encode_text(segment.text)
        seed = segment_seed(sampling.seed, segment.index)
        self.segment = segment
        self.text_tokens = len(text_tokens)
        self.decoder = SegmentDecoder(voice, seed)
        self.ended = False
        self.t3_s = 0.0
        self.generation = stages.t3.start(T3Request(text_tokens, voice, replace(sampling, seed=seed)))
        self._on_ended = on_ended
        self._observer = stages.observer
        self._failure: EngineFailure | None = None
        self._more = asyncio.Event()
        self._collector = asyncio.create_task(self._collect(), name=f"t3-segment-{segment.index}")

    async def _collect(self) -> None:
        clock = asyncio.get_running_loop().time
        started_s = clock()
        try:
            while codes := await self.generation.next_codes():
                self.t3_s = clock() - started_s
                if not self.decoder.codes:
                    self._observer.segment_prefilled(self.t3_s)
                self.decoder.codes.extend(codes)
                self._more.set()
            self._observer.segment_generated(self.t3_s, len(self.decoder.codes))
        except EngineFailure as failure:
            self._failure = failure
        except Exception as error:  # a fault of ours must end the segment too, not hang it
            self._failure = EngineFailure(f"T3 failed: {error!r}")
            self._failure.__cause__ = error
        self.ended = True
        self._more.set()
        self._on_ended()

    @property
    def token_s(self) -> float:
        """What one speech token has taken so far, the prompt's share included."""
        return self.t3_s / max(1, len(self.decoder.codes))

    async def next_window(self, planner: WindowPlanner, pace_of: Callable[[_Utterance], Pace | None]) -> Window | None:
        """The next window that is due; None once the segment is complete."""
        while True:
            if self._failure is not None:
                raise self._failure
            pace, available = pace_of(self), len(self.decoder.codes)
            window = planner.next(available, self.ended, pace)
            if window is not None or planner.finished:
                return window
            self._more.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(None if pace is None else planner.patience_s(available, pace)):
                    await self._more.wait()

    def figures(self, window: Window, decoded: Decoded) -> WindowFigures:
        new, made = window.stop - window.start, len(self.decoder.codes)
        return WindowFigures(window.index, new, made, decoded.queue_s, decoded.decode_s)

    async def cancel(self) -> None:
        """Stop T3 and free what it holds. Idempotent, and nothing to do after the end."""
        self._collector.cancel()
        await asyncio.gather(self._collector, return_exceptions=True)
        await self.generation.cancel()


class _Tally:
    """A segment's figures as they come in."""

    def __init__(self, listener: Listener) -> None:
        self._clock = asyncio.get_running_loop().time
        self._started_s = self._clock()
        self._listener = listener
        self._listener.begin_segment(self._started_s)
        self._samples = 0
        self._ttfa_s = 0.0
        self._s3gen_s = 0.0

    def decoding(self) -> _Stopwatch:
        return _Stopwatch(self._clock, self._add_decoding)

    def _add_decoding(self, elapsed_s: float) -> None:
        self._s3gen_s += elapsed_s

    def deliver(self, samples: int) -> None:
        now_s = self._clock()
        if self._samples == 0:
            self._ttfa_s = now_s - self._started_s
        self._samples += samples
        self._listener.deliver(now_s, samples)

    def stats(self, utterance: _Utterance, planner: WindowPlanner) -> SegmentStats:
        return SegmentStats(
            speech_tokens=len(utterance.decoder.codes),
            samples=self._samples,
            windows=planner.windows,
            ttfa_s=self._ttfa_s,
            t3_s=utterance.t3_s,
            s3gen_s=self._s3gen_s,
            max_gap_s=self._listener.max_gap_s,
            underruns=self._listener.underruns,
            underrun_s=self._listener.underrun_s,
            hit_token_limit=utterance.generation.hit_token_limit,
        )


class _Stopwatch:
    """Adds the time spent inside a `with` block to a sum."""

    def __init__(self, clock: Callable[[], float], add: Callable[[float], None]) -> None:
        self._clock, self._add = clock, add

    def __enter__(self) -> None:
        self._since_s = self._clock()

    def __exit__(self, *_: object) -> None:
        self._add(self._clock() - self._since_s)
