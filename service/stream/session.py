"""The object behind one stream: text in, audio and events out, flush, cancel, back-pressure.

Knows an engine by its protocols and nothing of RPC; whoever translates a surface calls it from one event loop.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import dataclass, field

from engines import api
from engines.api import Engine, SegmentStats, WindowFigures
from engines.config import Sampling
from engines.errors import EngineFailure, InvalidInput
from engines.voice import Voice
from service.audio.encoder import Encoded
from service.audio.formats import AudioSettings
from service.stream.backlog import Backlog, FlushMark
from service.stream.event_queue import EventQueue
from service.stream.segmenter import Segmenter
from service.stream.stream_meter import StreamMeter
from service.stream.timeline import Audio, PendingChunk, Timeline
from service.telemetry import metrics
from service.telemetry.metrics import counting_rejections
from service.telemetry.tracing import StreamTrace

log = logging.getLogger("mynah.service")

_TRIES = 3  # of what fails before a stream has audio
_RETRY_PAUSE_S = 0.05


@dataclass(frozen=True)
class StreamSettings:
    """Everything a stream is opened with, defaults filled in."""

    voice_id: str
    voice: Voice
    audio: AudioSettings
    sampling: Sampling


@dataclass(frozen=True)
class SessionLimits:
    """How much of one client's the server keeps at a time."""

    max_pending_text_chars: int = 20_000
    max_pending_flushes: int = 1_000
    send_queue_events: int = 8  # chunks and other events made ahead of a slow reader


@dataclass(frozen=True)
class Started:
    """Work on a segment began."""

    segment: api.Segment
    offset_samples: int
    text_tokens: int
    consumed_chars: int


@dataclass(frozen=True)
class Done:
    """A segment is complete; `samples` is the sum of its chunks. Skipped: there was nothing to speak in it."""

    segment_index: int
    offset_samples: int
    samples: int
    consumed_chars: int
    skipped: bool = False
    stats: SegmentStats = field(default_factory=SegmentStats)


@dataclass(frozen=True)
class Flushed:
    """All text before a flush has been spoken."""

    flush_id: int
    offset_samples: int


@dataclass(frozen=True)
class Cancelled:
    """All text before a cancel is dropped. Samples count from the opening of the stream."""

    made_samples: int
    delivered_samples: int
    segment_index: int | None  # the one begun and not completed
    dropped_flush_ids: tuple[int, ...]
    consumed_chars: int


Event = Audio | Started | Done | Flushed | Cancelled


class Session:
    """One stream's whole state. Use as an async context manager; leaving it frees everything it held.

    `write`, `flush`, `cancel` and `end` are for one task, `next_event` for one other. Between them stands the
    speaker, a task of the session's own, which drives the engine as far ahead as the outbox has room. A cancel
    replaces the speaker and the engine's stream: nothing of the old can reach the listener afterwards.
    """

    def __init__(self, engine: Engine, settings: StreamSettings, limits: SessionLimits, stream_id: str = "") -> None:
        """`stream_id` stands for the stream in metrics and traces."""
        self._stream_id = stream_id
        self._engine = engine
        self._settings = settings
        self._meter = StreamMeter(stream_id, settings.audio)
        self._trace = StreamTrace(stream_id, settings.audio.audio_format.value, settings.audio.sample_rate_hz)
        self._backlog = Backlog(Segmenter(), limits.max_pending_text_chars, limits.max_pending_flushes)
        self._event_queue: EventQueue[Event | PendingChunk] = EventQueue(limits.send_queue_events)
        self._timeline = Timeline(settings.audio)
        self._stream: api.SpeechStream | None = None
        self._speaker: asyncio.Task[None] | None = None
        self._begun: int | None = None  # the last segment whose work began
        self._open_segment: int | None = None  # told to the client as begun and not yet as done

    async def __aenter__(self) -> Session:
        """Raises EngineBusy when the engine has no room, InvalidInput when it cannot speak with these settings."""
        with counting_rejections():
            self._stream = await self._engine.open(self._settings.voice, self._settings.sampling)
        self._meter.opened()
        self._start_speaker()
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._silence()
        finally:
            self._meter.closed()
            self._trace.end()

    @property
    def settings(self) -> StreamSettings:
        return self._settings

    @property
    def delivered_samples(self) -> int:
        """Samples given to the reader so far, at the client's rate."""
        return self._timeline.delivered_samples

    @property
    def idle(self) -> bool:
        """Whether nothing happens until the client says more."""
        return self._backlog.idle and not len(self._event_queue)

    def write(self, text: str) -> None:
        """More text. Raises NoRoom when too much waits to be spoken."""
        self._backlog.write(text)
        self._note_work()

    def flush(self, flush_id: int) -> None:
        """Speak what there is; `Flushed` follows its last audio. Raises InvalidInput or NoRoom."""
        self._backlog.flush(flush_id)
        self._note_work()

    def end(self) -> None:
        """No more text: what waits is spoken, then the events end."""
        self._backlog.end()
        self._note_work()

    def _note_work(self) -> None:
        if not self._backlog.idle:
            self._meter.has_work(_now_s())

    async def cancel(self) -> None:
        """Drop text, work and audio not yet read. When this returns the engine has let go of all of it.

        Waits for room in the outbox only if nothing but answers to cancels is unread.
        """
        await self._silence()
        self._meter.cancelled()
        if self._event_queue.failed:
            return  # the reader is about to learn of the failure
        unread = self._event_queue.drop(keep=lambda event: isinstance(event, Cancelled))
        dropped = [event.flush_id for event in unread if isinstance(event, Flushed)] + self._backlog.drop()
        answer = Cancelled(
            made_samples=self._timeline.made_samples,
            delivered_samples=self._timeline.delivered_samples,
            segment_index=None if len(self._event_queue) else self._open_segment,  # an unread answer tells it already
            dropped_flush_ids=tuple(dropped),
            consumed_chars=self._backlog.consumed_chars,
        )
        self._timeline.rewind()
        await self._event_queue.put(answer)
        self._start_speaker()

    async def next_event(self) -> Event | None:
        """The next thing to tell the client; None at the end. Raises what the engine raised."""
        event = await self._event_queue.get()
        if isinstance(event, PendingChunk):
            chunk = self._timeline.deliver(event)
            self._meter.sent(_now_s(), chunk.samples, len(chunk.data))
            self._note_silence()
            return chunk
        if isinstance(event, Started):
            self._open_segment = event.segment.index
        elif isinstance(event, Done | Cancelled):
            self._open_segment = None
        self._note_silence()
        return event

    def _note_silence(self) -> None:
        if self.idle:
            self._meter.fell_silent()

    def _start_speaker(self) -> None:
        self._speaker = asyncio.create_task(self._speak_all(), name="speaker")

    async def _silence(self) -> None:
        """Stop the speaker, then free what the engine's stream holds."""
        speaker, self._speaker = self._speaker, None
        stream, self._stream = self._stream, None
        try:
            if speaker is not None:
                speaker.cancel()
                await asyncio.wait([speaker])
        finally:
            if stream is not None:
                await stream.close()

    async def _speak_all(self) -> None:
        metrics.stream_id.set(self._stream_id)  # for this task and those the engine starts from it
        try:
            while (work := await self._backlog.next()) is not None:
                if isinstance(work, FlushMark):
                    await self._event_queue.put(Flushed(work.flush_id, self._timeline.offset_samples))
                else:
                    await self._speak(work)
                self._backlog.done()
            self._event_queue.finish()
        except Exception as error:
            self._event_queue.finish(error)

    async def _speak(self, segment: api.Segment) -> None:
        """Speak a segment; again, on a new stream of the engine's, when it fails before this one has any audio."""
        for tries_left in reversed(range(_TRIES)):
            try:
                await self._speak_once(segment)
                return
            except EngineFailure as failure:
                if not tries_left or self._timeline.made_samples:
                    raise
                log.warning("the engine failed before a stream had audio (%s); trying again", failure.reason)
                metrics.RETRIES.inc()
                await self._start_over()

    async def _start_over(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            closing = asyncio.ensure_future(stream.close())
            try:
                await asyncio.shield(closing)
            finally:
                await asyncio.wait([closing])  # a cancel that comes now waits for it too
        self._timeline.rewind()
        await asyncio.sleep(_RETRY_PAUSE_S)

    async def _speak_once(self, segment: api.Segment) -> None:
        if self._stream is None:
            self._stream = await self._engine.open(self._settings.voice, self._settings.sampling)
        self._timeline.begin_segment()
        try:
            with self._trace.segment(segment.index, len(segment.text)):
                await self._speak_on(self._stream, segment)
        except InvalidInput as error:
            if error.reason != "TEXT_EMPTY":
                raise
            await self._event_queue.put(self._done(segment, skipped=True))

    async def _speak_on(self, stream: api.SpeechStream, segment: api.Segment) -> None:
        prepared: api.Segment | None = None
        worked_s, since_s = 0.0, _now_s()
        async with aclosing(stream.speak(segment)) as events:
            async for event in events:
                worked_s += _now_s() - since_s
                upcoming = self._backlog.upcoming()
                if upcoming is not None and upcoming != prepared and not isinstance(event, api.SegmentDone):
                    stream.prepare(upcoming)
                    prepared = upcoming
                if isinstance(event, api.SegmentDone):
                    self._meter.segment_done(event.stats.samples, worked_s)
                await self._forward(segment, event)
                since_s = _now_s()

    async def _forward(self, segment: api.Segment, event: api.Event) -> None:
        if isinstance(event, api.AudioChunk):
            self._meter.made(len(event.samples), event.window)
            self._trace.window(event.window)
            await self._send(segment, await self._timeline.encode(event.samples), event.window)
        elif isinstance(event, api.SegmentDone):
            await self._send(segment, await self._timeline.end_segment())
            await self._event_queue.put(self._done(segment, stats=event.stats))
        elif self._begun != segment.index:  # a second try has been told of already
            self._begun = segment.index
            offset, consumed = self._timeline.offset_samples, self._backlog.consumed_chars
            await self._event_queue.put(Started(segment, offset, event.text_tokens, consumed))

    async def _send(self, segment: api.Segment, encoded: Encoded, window: WindowFigures | None = None) -> None:
        if encoded.samples:
            await self._event_queue.put(self._timeline.make(segment.index, encoded, window))

    def _done(self, segment: api.Segment, *, skipped: bool = False, stats: SegmentStats | None = None) -> Done:
        start = self._timeline.segment_offset_samples
        samples = self._timeline.offset_samples - start
        consumed = self._backlog.consumed_chars
        return Done(segment.index, start, samples, consumed, skipped, stats or SegmentStats())


def _now_s() -> float:
    return asyncio.get_running_loop().time()
