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
    NULL_OBSERVER,
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
from engines.config import Sampling
from engines.errors import EngineBusy, EngineFailure, InvalidInput
from engines.health import Health
from engines.model_spec import SAMPLE_RATE_HZ
from engines.playback import ActiveStreams, PlaybackClock
from engines.s3gen.noise import segment_seed
from engines.s3gen.streaming.batcher import WindowBatcher
from engines.s3gen.streaming.schedule import Schedule
from engines.s3gen.streaming.segment_decoder import SegmentDecoder
from engines.s3gen.streaming.window_queue import Decoded
from engines.s3gen.streaming.windows import Pace, Wait, Window, WindowPlanner
from engines.segment_stats import SegmentStatsRecorder
from engines.t3.backend import T3Backend, T3Request
from engines.voice import Voice

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
    observer: Observer = NULL_OBSERVER


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
        self._audience = ActiveStreams()

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
        stream = PipelineStream(self.stages, voice, sampling, self._audience, self._streams.discard)
        self._streams.add(stream)
        return stream

    async def warm_up(self) -> None:
        if self.default_voice is None:
            return  # nothing to speak with: the first stream pays for it
        stream = await self.open(self.default_voice, _WARM_UP)
        try:
            async for _ in stream.speak(Segment(0, _WARM_UP_TEXT)):
                pass
        finally:
            await stream.close()
        await self.stages.s3gen.calibrate(self.default_voice)

    async def close(self) -> None:
        for stream in list(self._streams):
            await stream.close()
        await self.stages.s3gen.close()
        await self.stages.t3.close()


class PipelineStream:
    """One listener's stream: its utterances in the making, its place on the timeline, its listener."""

    def __init__(
        self,
        stages: Stages,
        voice: Voice,
        sampling: Sampling,
        audience: ActiveStreams,
        on_closed: Callable[[PipelineStream], None],
    ) -> None:
        self.stages = stages
        self._voice = voice
        self._sampling = sampling
        self._audience = audience
        self._on_closed = on_closed
        self._listener = PlaybackClock(SAMPLE_RATE_HZ)
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
        tally = SegmentStatsRecorder(self._listener, asyncio.get_running_loop().time)
        planner = WindowPlanner(self.stages.schedule)
        try:
            yield SegmentStarted(segment, utterance.text_tokens)
            self._audience.update(self, self._listener.dry_at_s)
            while (window := await utterance.next_window(planner, self._pace)) is not None:
                grow = None if self._sampling.repeatable else partial(utterance.grow, planner, self._pace)
                decoded = await self.stages.s3gen.decode(utterance.decoder, window, self._deadline_s(), grow)
                tally.deliver(decoded)
                self._audience.update(self, self._listener.dry_at_s)
                figures = utterance.figures(decoded)
                yield AudioChunk(segment.index, self._position_samples, decoded.samples, figures)
                self._position_samples += len(decoded.samples)
            await utterance.cancel()
            self._current = None
            yield SegmentDone(segment, utterance.stats(tally))
        finally:
            self._audience.leave(self)
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
        now_s = asyncio.get_running_loop().time()
        prompt_tokens = len(self._voice.s3gen_prompt_tokens)

        def call_s(context_tokens: int, block_tokens: int) -> float:
            return self.stages.s3gen.call_s(prompt_tokens + context_tokens, block_tokens, len(self._audience))

        def queue_s(due_in_s: float) -> float:
            schedule, streams_due_before = (
                self.stages.schedule,
                self._audience.streams_due_before(self, now_s + due_in_s),
            )
            seen = prompt_tokens + schedule.left_context_tokens  # as large as windows become under load
            return self.stages.s3gen.queue_s(seen, schedule.max_block_tokens, streams_due_before, now_s)

        return Pace(self._listener.lead_s(now_s), utterance.token_s, call_s, queue_s)

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
        self._first_code_s = 0.0
        self.generation = stages.t3.start(T3Request(text_tokens, voice, replace(sampling, seed=seed)))
        self.generation.set_target(stages.schedule.ahead_tokens)
        self._on_ended = on_ended
        self._observer = stages.observer
        self._failure: EngineFailure | None = None
        self._awaited_tokens = 0
        self._enough = asyncio.Event()  # that many codes are there, or there will be no more
        self._collector = asyncio.create_task(self._collect(), name=f"t3-segment-{segment.index}")

    async def _collect(self) -> None:
        clock = asyncio.get_running_loop().time
        started_s = clock()
        try:
            while speech_tokens := await self.generation.next_speech_tokens():
                self.t3_s = clock() - started_s
                if not self.decoder.speech_tokens:
                    self._first_code_s = self.t3_s
                    self._observer.segment_prefilled(self.t3_s)
                self.decoder.speech_tokens.extend(speech_tokens)
                if len(self.decoder.speech_tokens) >= self._awaited_tokens:
                    self._enough.set()
            self._observer.segment_generated(self.t3_s, len(self.decoder.speech_tokens))
        except EngineFailure as failure:
            self._failure = failure
        except Exception as error:  # a fault of ours must end the segment too, not hang it
            self._failure = EngineFailure(f"T3 failed: {error!r}")
            self._failure.__cause__ = error
        self.ended = True
        self._enough.set()
        self._on_ended()

    @property
    def token_s(self) -> float:
        """What one speech token takes, once the prompt has been read."""
        return (self.t3_s - self._first_code_s) / max(1, len(self.decoder.speech_tokens) - 1)

    async def next_window(self, planner: WindowPlanner, pace_of: Callable[[_Utterance], Pace | None]) -> Window | None:
        """The next window that is due; None once the segment is complete."""
        while True:
            if self._failure is not None:
                raise self._failure
            window = planner.next(len(self.decoder.speech_tokens), self.ended, pace_of(self))
            if window is not None or planner.finished:
                self.generation.set_target(planner.decoded_tokens + planner.schedule.ahead_tokens)
                return window
            await self._wait(planner.wait)

    async def _wait(self, wait: Wait) -> None:
        self._awaited_tokens = wait.available_tokens
        self._enough.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(wait.for_s):
                await self._enough.wait()

    def grow(self, planner: WindowPlanner, pace_of: Callable[[_Utterance], Pace | None], window: Window) -> Window:
        """What became of a window that waited for the device."""
        pace = pace_of(self)
        assert pace is not None, "repeatable windows never change"
        grown = planner.grow(window, len(self.decoder.speech_tokens), self.ended, pace)
        if grown != window:
            self.generation.set_target(planner.decoded_tokens + planner.schedule.ahead_tokens)
        return grown

    def figures(self, decoded: Decoded) -> WindowFigures:
        window, made = decoded.window, len(self.decoder.speech_tokens)
        new = window.stop - window.start
        return WindowFigures(window.index, new, made, decoded.queue_s, decoded.decode_s)

    def stats(self, tally: SegmentStatsRecorder) -> SegmentStats:
        return tally.stats(
            speech_tokens=len(self.decoder.speech_tokens),
            t3_s=self.t3_s,
            hit_token_limit=self.generation.hit_token_limit,
        )

    async def cancel(self) -> None:
        """Stop T3 and free what it holds. Idempotent, and nothing to do after the end."""
        self._collector.cancel()
        await asyncio.gather(self._collector, return_exceptions=True)
        await self.generation.cancel()
