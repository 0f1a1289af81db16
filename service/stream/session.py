"""The session behind one stream: text in, audio and events out, flush, cancel, back-pressure."""

from __future__ import annotations

import asyncio
from functools import partial

from engines.api import Engine, Limits
from engines.config import OFFLINE
from engines.time_scale import check_speed
from mynah.client.events import AudioChunk, Cancelled, Event, Flushed, SegmentDone, SegmentStarted
from service.stream.backlog import Backlog
from service.stream.early_end import EarlyStart, FirstSegment, first_clause_end
from service.stream.event_queue import EventQueue
from service.stream.policy import StreamPolicy
from service.stream.segmenter import Segmenter
from service.stream.sentences.languages import rules_of
from service.stream.settings import StreamSettings
from service.stream.speaker import Speaker
from service.stream.stream_meter import StreamMeter
from service.stream.text.reader import TextReader
from service.stream.text.spoken_limits import SpokenLimits
from service.stream.timeline import PendingChunk, Timeline
from service.telemetry.metrics import counting_rejections
from service.telemetry.tracing import StreamTrace


class Session:
    """One stream's whole state. Use as an async context manager; leaving it frees everything it held.

    `write`, `flush`, `cancel`, `set_speed` and `end` are for one task, `next_event` for one other. Between them a
    Speaker, with a task of its own, drives the engine as far ahead as the event queue has room. A cancel stops it and
    closes the engine's stream, so nothing of the old can reach the reader afterwards.
    """

    def __init__(self, engine: Engine, settings: StreamSettings, policy: StreamPolicy, stream_id: str = "") -> None:
        """`stream_id` names the stream in metrics and traces."""
        self._settings, self._model = settings, engine.info.model
        audio, has_listener = settings.audio, settings.sampling.schedule != OFFLINE
        self._trace = StreamTrace(stream_id, audio.audio_format.value, audio.sample_rate_hz)
        self._meter = StreamMeter(audio, self._trace.exemplar, has_listener=has_listener)
        first_segment = settings.used_first_segment
        self._backlog = Backlog(
            _text_reader(engine, settings, first_segment),
            policy.max_pending_text_chars,
            policy.max_pending_flushes,
            EarlyStart(self._dry_at_s, rules_of(settings.language)) if first_segment is FirstSegment.AUTO else None,
            self._note_work,
            word_times=settings.word_times,
            word_guard=settings.word_guard,
            continuity=settings.continuity,
            language=settings.language if engine.info.languages else "",
        )
        self._event_queue: EventQueue[Event | PendingChunk] = EventQueue(policy.send_queue_events)
        self._timeline = Timeline(settings.audio)
        self._speaker = Speaker(
            engine,
            settings,
            self._trace,
            backlog=self._backlog,
            timeline=self._timeline,
            event_queue=self._event_queue,
            meter=self._meter,
        )
        self._open_segment: int | None = None  # the reader has its SegmentStarted and not yet its SegmentDone

    async def __aenter__(self) -> Session:
        """Raises EngineBusy if the engine has no capacity, InvalidInput if it cannot speak with these settings."""
        with counting_rejections():
            await self._speaker.open()
        self._meter.opened()
        self._speaker.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._speaker.stop()
        finally:
            self._meter.closed()
            self._trace.end()

    @property
    def settings(self) -> StreamSettings:
        return self._settings

    @property
    def model(self) -> str:
        """The name of the model that speaks."""
        return self._model

    @property
    def exemplar(self) -> dict[str, str]:
        """This stream as the exemplar of a measurement."""
        return self._trace.exemplar

    @property
    def delivered_samples(self) -> int:
        """Samples given to the reader so far, at the client's rate."""
        return self._timeline.delivered_samples

    @property
    def skip_reasons(self) -> frozenset[str]:
        """Why segments were skipped so far."""
        return self._speaker.skip_reasons

    def figures(self) -> dict[str, float | None]:
        """What the stream has received and given so far, by names with units; None: not measured."""
        return {
            "audio_s": round(self.delivered_samples / self._settings.audio.sample_rate_hz, 3),
            "text_chars": self._backlog.received_chars,
            **self._meter.figures(),
        }

    @property
    def idle(self) -> bool:
        """Whether nothing happens until the client sends more."""
        return self._backlog.idle and not len(self._event_queue)

    def check_room(self, text: str) -> None:
        """Raises ResourceExhausted if too much would wait to be spoken with this text."""
        self._backlog.check_room(text)

    def write(self, text: str) -> None:
        """Append text. Raises ResourceExhausted if too much waits to be spoken, InvalidInput for refused markup."""
        self._backlog.write(text)
        self._note_work()

    def flush(self, flush_id: int) -> None:
        """Speak what was written so far; `Flushed` follows its last audio. Raises InvalidInput, ResourceExhausted."""
        self._backlog.flush(flush_id)
        self._note_work()

    def set_speed(self, speed: float) -> None:
        """Speak the segments that have not begun at this speed. Raises InvalidInput if it is not allowed."""
        self._speaker.speed = check_speed(speed, "set_speed.speed")

    def end(self) -> None:
        """Take no more text: what waits is spoken, then the events end. Raises InvalidInput for SSML that is open."""
        self._backlog.end()
        self._note_work()

    def _dry_at_s(self) -> float | None:
        """When the listener has played all that is made; None before the first chunk is."""
        unsent_s = self._timeline.unsent_samples / self._settings.audio.sample_rate_hz
        dry_at_s = self._meter.dry_at_s
        return max(dry_at_s or 0.0, _now_s()) + unsent_s if unsent_s else dry_at_s

    def _note_work(self) -> None:
        if not self._backlog.idle:
            self._meter.has_work(_now_s())

    async def cancel(self) -> None:
        """Drop text, work and unread audio. When this returns, the engine has freed all of it.

        Waits for room in the event queue only if nothing but answers to cancels is unread.
        """
        await self._speaker.stop()
        self._meter.cancelled()
        if self._event_queue.failed:
            return  # the reader is about to receive the failure
        unread = self._event_queue.drop(keep=lambda event: isinstance(event, Cancelled))
        dropped = [event.flush_id for event in unread if isinstance(event, Flushed)] + self._backlog.drop()
        answer = Cancelled(
            made_samples=self._timeline.made_samples,
            delivered_samples=self._timeline.delivered_samples,
            segment_index=None if len(self._event_queue) else self._open_segment,  # an unread answer names it already
            dropped_flush_ids=tuple(dropped),
            consumed_text_chars=self._backlog.consumed_chars,
            words=() if len(self._event_queue) else self._timeline.delivered_words(self._open_segment),
        )
        self._timeline.rewind()
        await self._event_queue.put(answer)
        self._speaker.start()

    async def next_event(self) -> Event | None:
        """The next event for the client, or None at the end. Raises what the engine raised."""
        item = await self._event_queue.get()
        event = self._timeline.emit(item) if isinstance(item, PendingChunk) else item
        if isinstance(event, AudioChunk):
            self._meter.sent(_now_s(), event.samples, len(event.data))
        elif isinstance(event, SegmentStarted):
            self._open_segment = event.segment_index
        elif isinstance(event, SegmentDone | Cancelled):
            self._open_segment = None
        if self.idle:
            self._meter.went_idle()
        return event


def _text_reader(engine: Engine, settings: StreamSettings, first_segment: FirstSegment) -> TextReader:
    limits, rules = engine.info.limits, rules_of(settings.language)
    bounds = split_chars(limits, settings.language), limits.max_text_tokens_per_segment, engine.count_text_tokens
    segmenter = Segmenter(*bounds, rules=rules)
    if first_segment is FirstSegment.CLAUSE:
        segmenter = Segmenter(*bounds, partial(first_clause_end, rules=rules), rules)
    return TextReader(segmenter, settings.text, SpokenLimits(*bounds, rules), settings.language)


def split_chars(limits: Limits, language: str) -> int:
    """Returns the length in characters at which a sentence of a language is split."""
    return min(rules_of(language).split_chars, limits.max_text_chars_per_segment)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
