"""The speaking side of a session: one task that has the engine speak the backlog and queues the client's events."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import asdict, replace

import numpy as np

from engines import api
from engines.api import Engine, Segment, SegmentStats
from engines.errors import EngineFailure, InvalidInput
from engines.model_spec import SAMPLE_RATE_HZ
from engines.time_scale import bounded_speed
from mynah.client import events
from mynah.client.events import EndReason, SkipReason
from service.audio.encoder import Encoded
from service.stream.backlog import Backlog, FlushMark, Silence
from service.stream.event_queue import EventQueue
from service.stream.settings import StreamSettings, UnspeakableText
from service.stream.stream_meter import StreamMeter
from service.stream.text.items import Mark
from service.stream.timeline import PendingChunk, Timeline
from service.telemetry import metrics
from service.telemetry.tracing import StreamTrace

log = logging.getLogger("mynah.service")

_SKIP_REASONS: dict[str, SkipReason] = {
    "TEXT_EMPTY": "nothing_to_speak",
    "SCRIPT_UNSUPPORTED": "script_unsupported",
}
_TRIES = 3  # of a segment that fails before the stream has audio
_RETRY_PAUSE_S = 0.05
_SILENCE_CHUNK_SAMPLES = SAMPLE_RATE_HZ // 2


class Speaker:
    """Drives one engine stream at a time, as far ahead as the event queue has room.

    `open`, `start`, then `stop`; after that `start` again for the work that comes next.
    """

    def __init__(
        self,
        engine: Engine,
        settings: StreamSettings,
        trace: StreamTrace,
        *,
        backlog: Backlog,
        timeline: Timeline,
        event_queue: EventQueue[events.Event | PendingChunk],
        meter: StreamMeter,
    ) -> None:
        self._engine, self._settings, self._trace = engine, settings, trace
        self._backlog, self._timeline, self._event_queue = backlog, timeline, event_queue
        self._meter = meter
        self._stream: api.SpeechStream | None = None
        self._task: asyncio.Task[None] | None = None
        self._ran_away = False  # some segment, which was logged
        self.skip_reasons: frozenset[SkipReason] = frozenset()  # of the segments skipped so far
        self.speed = settings.speed  # of the segments that begin from now on
        self._started_segment: int | None = None  # the last one whose SegmentStarted was queued

    async def open(self) -> None:
        """Open the engine's stream.

        Raises EngineBusy if the engine has no capacity, InvalidInput if it cannot speak with these settings.
        """
        self._stream = await self._engine.open(self._settings.voice, self._settings.sampling)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="speaker")

    async def stop(self) -> None:
        """End the task, then free what the engine's stream holds."""
        task, self._task = self._task, None
        stream, self._stream = self._stream, None
        try:
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        finally:
            if stream is not None:
                await stream.close()

    async def _run(self) -> None:
        metrics.exemplar.set(self._trace.exemplar)  # for this task and those that the engine starts from it
        try:
            while (work := await self._backlog.next()) is not None:
                if isinstance(work, FlushMark):
                    await self._event_queue.put(events.Flushed(work.flush_id, self._timeline.offset_samples))
                elif isinstance(work, Mark):
                    await self._event_queue.put(events.MarkReached(work.name, self._timeline.offset_samples))
                elif isinstance(work, Silence):
                    await self._be_silent(work)
                else:
                    await self._speak_with_retries(replace(work, speed=bounded_speed(work.speed * self.speed)))
                self._backlog.done()
            self._event_queue.finish()
        except Exception as error:
            self._event_queue.finish(error)

    async def _be_silent(self, silence: Silence) -> None:
        """Queue a pause: a segment without text."""
        self._timeline.begin_segment()
        consumed = self._backlog.consumed_chars
        start = self._timeline.offset_samples
        await self._event_queue.put(
            events.SegmentStarted(silence.index, start, "", 0, consumed, pause_s=silence.duration_s)
        )
        left = round(silence.duration_s * SAMPLE_RATE_HZ)
        while left > 0:
            samples = np.zeros(min(left, _SILENCE_CHUNK_SAMPLES), np.float32)
            left -= len(samples)
            self._meter.made(len(samples), None)
            await self._queue_audio(silence.index, await self._timeline.encode(samples))
        await self._queue_audio(silence.index, await self._timeline.end_segment())
        segment = Segment(silence.index, "")
        await self._event_queue.put(replace(self._segment_done(segment, SegmentStats(), "spoken"), pause=True))

    async def _speak_with_retries(self, segment: Segment) -> None:
        """Speak a segment. If the engine fails before the stream has audio, try again on a new engine stream."""
        for tries_left in reversed(range(_TRIES)):
            try:
                await self._speak(segment)
                return
            except EngineFailure as failure:
                if not tries_left or self._timeline.made_samples:
                    raise
                log.warning("the engine failed before a stream had audio (%s); trying again", failure.reason)
                metrics.RETRIES.inc()
                await self._discard_stream()
                self._timeline.rewind()
                await asyncio.sleep(_RETRY_PAUSE_S)

    async def _discard_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            closing = asyncio.ensure_future(stream.close())
            try:
                await asyncio.shield(closing)
            finally:
                await asyncio.wait([closing])  # also if `stop` cancels this task meanwhile

    async def _speak(self, segment: Segment) -> None:
        """Speak a segment and queue its events. A segment that holds nothing to speak is reported as skipped."""
        if self._stream is None:
            await self.open()
        assert self._stream is not None
        self._timeline.begin_segment()
        try:
            with self._trace.segment(segment.index, len(segment.text)):
                await self._queue_all(self._stream, segment)
        except InvalidInput as error:
            if error.reason not in _SKIP_REASONS or self._refuses(error):
                raise
            self.skip_reasons |= {_SKIP_REASONS[error.reason]}
            done = self._segment_done(segment, SegmentStats(), "skipped", _SKIP_REASONS[error.reason])
            await self._event_queue.put(done)

    def _refuses(self, error: InvalidInput) -> bool:
        refuses = self._settings.text.unspeakable_text is UnspeakableText.REFUSE
        return refuses and error.reason == "SCRIPT_UNSUPPORTED"

    async def _queue_all(self, stream: api.SpeechStream, segment: Segment) -> None:
        """Queue the engine's events of a segment, and meanwhile announce the segment that comes next."""
        prepared: Segment | None = None
        worked_s, since_s = 0.0, _now_s()
        async with aclosing(stream.speak(segment)) as engine_events:
            async for event in engine_events:
                worked_s += _now_s() - since_s
                if isinstance(event, api.SegmentDone):
                    self._meter.segment_done(event.stats.samples, worked_s)
                else:
                    prepared = self._prepare_next(stream, prepared)
                await self._queue(segment, event)
                since_s = _now_s()

    def _prepare_next(self, stream: api.SpeechStream, prepared: Segment | None) -> Segment | None:
        upcoming = self._backlog.upcoming()
        if upcoming is None or upcoming == prepared:
            return prepared
        stream.prepare(upcoming)
        return upcoming

    async def _queue(self, segment: Segment, event: api.Event) -> None:
        """Queue one of the engine's events as the client's."""
        if isinstance(event, api.AudioChunk):
            self._meter.made(len(event.samples), event.window)
            self._trace.window(event.window)
            await self._queue_audio(segment.index, await self._timeline.encode(event.samples), event.window)
        elif isinstance(event, api.Words):
            self._timeline.add_words(event)
            await self._queue_words(segment.index)
        elif isinstance(event, api.SegmentDone):
            await self._queue_audio(segment.index, await self._timeline.end_segment())
            await self._queue_words(segment.index, all_made=True)
            await self._event_queue.put(self._segment_done(segment, event.stats, self._end_reason(event)))
        elif self._started_segment != segment.index:  # a second try has been announced already
            self._started_segment = segment.index
            await self._event_queue.put(self._segment_started(segment, event.text_tokens))

    async def _queue_words(self, index: int, *, all_made: bool = False) -> None:
        if (words := self._timeline.take_words(index, all_made=all_made)) is not None:
            await self._event_queue.put(words)

    async def _queue_audio(self, index: int, encoded: Encoded, window: api.WindowFigures | None = None) -> None:
        if encoded.samples:
            await self._event_queue.put(self._timeline.enqueue(index, encoded, window))

    def _segment_started(self, segment: Segment, text_tokens: int) -> events.SegmentStarted:
        return events.SegmentStarted(
            segment_index=segment.index,
            offset_samples=self._timeline.offset_samples,
            text=segment.written,
            text_tokens=text_tokens,
            consumed_text_chars=self._backlog.consumed_chars,
            speed=segment.speed,
            spoken_text=segment.text,
            spoken_spans=_spoken_spans(segment),
        )

    def _end_reason(self, done: api.SegmentDone) -> EndReason:
        if done.stats.hit_runaway_limit and not self._ran_away:
            self._ran_away = True
            log.warning(
                "stream %s: segment %d went on for %.1f s, far longer than its %d characters can take; it was ended",
                self._trace.stream_id,
                done.segment.index,
                done.stats.samples / SAMPLE_RATE_HZ,
                len(done.segment.text),
            )
        if done.stats.hit_runaway_limit:
            return "runaway"
        return "token_limit" if done.stats.hit_token_limit else "spoken"

    def _segment_done(
        self, segment: Segment, stats: SegmentStats, end_reason: EndReason, skip_reason: SkipReason = "unspecified"
    ) -> events.SegmentDone:
        metrics.SEGMENTS.labels(end_reason).inc()
        start = self._timeline.segment_offset_samples
        figures = dict(vars(stats))  # asdict copies every value, for thousands of skipped segments of a text
        del figures["hit_runaway_limit"]  # which `end_reason` says
        if (found := stats.word_guard) is not None:
            metrics.WORD_GUARD.labels(found.fault, found.action).inc()
            figures["word_guard"] = events.WordGuard(**asdict(found))
        at_clients_rate = {"samples": self._timeline.offset_samples - start}
        return events.SegmentDone(
            segment_index=segment.index,
            offset_samples=start,
            skipped=end_reason == "skipped",
            end_reason=end_reason,
            skip_reason=skip_reason,
            consumed_text_chars=self._backlog.consumed_chars,
            **(figures | at_clients_rate),
        )


def _spoken_spans(segment: Segment) -> tuple[events.SpokenSpan, ...]:
    if segment.reading is None:
        return ()
    return tuple(
        events.SpokenSpan(span.spoken_start, span.spoken_end, span.written_start, span.written_end)
        for span in segment.reading.spans
    )


def _now_s() -> float:
    return asyncio.get_running_loop().time()
