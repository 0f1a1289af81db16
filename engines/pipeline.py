"""The pipeline that joins the stages of one stream: text -> T3 -> windows -> S3Gen -> chunks.

Read `PipelineStream.speak` first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from engines.api import (
    NULL_OBSERVER,
    AudioChunk,
    DeviceMemory,
    EngineInfo,
    Event,
    Observer,
    Samples,
    Segment,
    SegmentDone,
    SegmentStarted,
    SegmentStats,
    WindowFigures,
    WordGuardReport,
    Words,
)
from engines.audio import faded_out
from engines.config import Sampling
from engines.continuity import Continuity
from engines.errors import EngineBusy, EngineFailure, InvalidInput, unsupported
from engines.health import Health
from engines.model_spec import SAMPLE_RATE_HZ, SILENCE_SPEECH_TOKEN, SILENCE_TAIL_TOKENS
from engines.playback import ActiveStreams, PlaybackClock
from engines.s3gen.noise import segment_seed
from engines.s3gen.streaming.batcher import WindowBatcher
from engines.s3gen.streaming.named_schedule import Load, schedule_for
from engines.s3gen.streaming.pacing import SegmentPlan, StreamPacer, TokenProgress
from engines.s3gen.streaming.schedule import OFFLINE, SCHEDULES, STREAM_SCHEDULES, Schedule
from engines.s3gen.streaming.segment_decoder import SegmentDecoder
from engines.s3gen.streaming.window_queue import OFFLINE_DEADLINE_S, Decoded
from engines.s3gen.streaming.windows import Wait, Window
from engines.segment_reader import SegmentReader, SegmentText
from engines.segment_stats import SegmentStatsRecorder
from engines.t3.backend import T3Backend, T3Request
from engines.text.languages.workers import WORKERS, LanguageWorkers
from engines.text.reading import Reading
from engines.time_scale import TimeScale
from engines.voice import Voice
from engines.words.guard import Fault, Finding
from engines.words.segment import SegmentWords, at_speed
from engines.words.source import Aligner
from engines.words.text import Word
from engines.worker_pool import WorkerPool

# a voice takes seconds; decoding the recording has a limit of its own, which says so to its sender
_VOICE_WORKERS, _VOICE_TIME_LIMIT_S = 4, 120.0
_MAX_REDRAWS = 2  # of a segment whose words are wrong
_WARM_UP_TEXT = "Hello there."
_WARM_UP_SPEECH_TOKENS = 50


class Encoder(Protocol):
    """Text of one segment -> text tokens. Raises InvalidInput if there is nothing to say or too much.

    A language is given only where one was chosen.
    """

    def __call__(self, text: str, language: str = "") -> tuple[int, ...]: ...


class Builder(Protocol):
    """Reference audio -> Voice. Slow; it is called off the event loop."""

    def build(self, audio: bytes, name: str, *, normalize_loudness: bool = True) -> Voice: ...

    def similarity(self, voice: Voice, speech: Samples) -> float | None:
        """As Engine.similarity. Slow; it is called off the event loop."""


@dataclass(frozen=True)
class Stages:
    """The engine's parts, shared by all its streams."""

    encode_text: Encoder
    t3: T3Backend
    s3gen: WindowBatcher
    schedule: Schedule
    observer: Observer = NULL_OBSERVER
    count_text_tokens: Callable[[str], int] = len  # of one word
    runaway_tokens: Callable[..., int | None] = lambda *_: None  # the most speech tokens that a text can take
    words_of: Callable[..., tuple[Word, ...]] = lambda *_: ()  # of a Reading
    aligner: Aligner | None = None  # None: no segment asks for word times
    silence_tokens: int = SILENCE_TAIL_TOKENS  # that T3 closes every segment with
    load_language: Callable[[str], None] = lambda _: None  # slow, for a thread
    continuity: Continuity | None = None  # None: no segment asks for it
    slow_languages: frozenset[str] = frozenset()  # whose texts are read off the event loop
    languages: LanguageWorkers = WORKERS

    def read(self, segment: Segment) -> SegmentText:
        """Returns what T3 gets of a segment's text. Slow in `slow_languages`. Raises InvalidInput."""
        language = (segment.language,) if segment.language else ()
        text_tokens = self.encode_text(segment.text, *language)
        words = None
        if (segment.word_times or segment.word_guard) and self.aligner is not None:
            words = self.words_of(segment.reading or Reading(segment.text, segment.text), *language)
        return SegmentText(text_tokens, self.runaway_tokens(segment.text, *language), words)


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
        other_voices: Mapping[str, Voice] | None = None,
        on_close: Callable[[], None] = lambda: None,
        active_streams: ActiveStreams | None = None,
    ) -> None:
        """`active_streams`: those of all engines on the device; None: this one's alone."""
        self.info = info
        self._on_close = on_close
        self.health = health or Health()
        self.device_memory = device_memory
        self.default_voice = default_voice
        self.other_voices: Mapping[str, Voice] = other_voices or {}
        self.stages = stages
        self._builder = builder
        self._voice_workers = WorkerPool(
            "make-voice",
            workers=_VOICE_WORKERS,
            time_limit_s=_VOICE_TIME_LIMIT_S,
            reason="VOICE_TIMEOUT",
            work="Making the voice",
        )
        self._streams: set[PipelineStream] = set()
        self._active_streams = ActiveStreams() if active_streams is None else active_streams
        self._loaded_languages: set[str] = set()

    @property
    def open_streams(self) -> int:
        return len(self._streams)

    def count_text_tokens(self, word: str) -> int:
        return self.stages.count_text_tokens(word)

    async def make_voice(self, audio: bytes, *, name: str, normalize_loudness: bool = True) -> Voice:
        return await self._voice_workers.run(self._builder.build, audio, name, normalize_loudness=normalize_loudness)

    async def similarity(self, voice: Voice, speech: Samples) -> float | None:
        return await self._voice_workers.run(self._builder.similarity, voice, speech)

    def schedule_now(self, voice: Voice, max_streams: int) -> str:
        own = self.stages.schedule
        if own.name not in SCHEDULES:
            return ""  # an engine of whole segments
        silent = sum(stream.awaited for stream in self._streams)  # they may all begin at any moment
        streams = len(self._active_streams) + silent + 1
        now_s = asyncio.get_running_loop().time()
        token_s = max((stream.token_s for stream in self._streams), default=0.0)
        load = Load(streams, max_streams, token_s, self.stages.s3gen.forecast, now_s)
        return schedule_for(own, len(voice.s3gen_prompt_tokens), load).name

    async def load_language(self, language: str) -> None:
        if language not in self._loaded_languages:
            await self.stages.languages.load(language, self._load_once, language)

    def _load_once(self, language: str) -> None:
        """In the language's thread."""
        if language not in self._loaded_languages:
            self.stages.load_language(language)
            self._loaded_languages.add(language)

    async def open(self, voice: Voice, sampling: Sampling) -> PipelineStream:
        stages = self.stages
        if sampling.schedule:
            if stages.schedule.name not in SCHEDULES:
                raise unsupported("schedule", sampling.schedule, "an engine of whole segments", "none")
            stages = replace(stages, schedule=STREAM_SCHEDULES[sampling.schedule])
        max_streams = self.info.limits.max_streams
        if len(self._streams) >= max_streams:
            raise EngineBusy(f"All {max_streams} streams of this engine are in use; retry when one has ended.")
        if self._streams and self.stages.s3gen.overloaded(asyncio.get_running_loop().time()):
            raise EngineBusy("The open streams already run dry on this device; retry when one has ended.")
        stream = PipelineStream(stages, voice, sampling, self._active_streams, self._streams.discard)
        self._streams.add(stream)
        return stream

    async def warm_up(self) -> None:
        if self.default_voice is None:
            return  # the first stream pays for first use
        sampling = replace(self.info.sampling, seed=1, max_speech_tokens=_WARM_UP_SPEECH_TOKENS)
        stream = await self.open(self.default_voice, sampling)
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
        if self.stages.aligner is not None:
            self.stages.aligner.close()
        self._on_close()


class PipelineStream:
    """One listener's stream: the segment that is spoken, the one prefetched behind it, and the playback of both."""

    def __init__(
        self,
        stages: Stages,
        voice: Voice,
        sampling: Sampling,
        active_streams: ActiveStreams,
        on_closed: Callable[[PipelineStream], None],
    ) -> None:
        self.stages = stages
        self._voice = voice
        self._sampling = sampling
        self._active_streams = active_streams
        self._on_closed = on_closed
        self._playback = PlaybackClock(SAMPLE_RATE_HZ)
        prompt_tokens = len(voice.s3gen_prompt_tokens)
        pacer = StreamPacer(self._playback, active_streams, stages.s3gen.forecast, stages.schedule, prompt_tokens)
        self._pacer = None if sampling.repeatable else pacer
        self._reader = SegmentReader(stages.read, stages.slow_languages, stages.languages)
        self._position_samples = 0
        self._current: _Utterance | None = None
        self._prepared: _Utterance | None = None
        self._to_prepare: Segment | None = None
        self._before: tuple[int, ...] = ()  # the speech tokens of the segment before the current one
        self._closed = False
        self.has_spoken = False  # or has begun to
        self._has_listener = stages.schedule is not OFFLINE

    def prepare(self, segment: Segment) -> None:
        """Start T3 on `segment` as soon as it has finished the one being spoken, and the text has been read."""
        self._to_prepare = segment
        if self._prepared is None:
            self._reader.announce(segment, self._start_if_free)
        self._start_if_free()

    def _start_if_free(self) -> None:
        if self._current is None or self._current.ended:
            self._start_prepared()

    async def speak(self, segment: Segment) -> AsyncGenerator[Event, None]:
        self.has_spoken = True
        recorder = SegmentStatsRecorder(self._playback, asyncio.get_running_loop().time)
        utterance = await self._take(segment)
        utterance.plan.speed = segment.speed
        time_scale = TimeScale(segment.speed)
        try:
            yield SegmentStarted(segment, utterance.text_tokens)
            self._note_listener()
            while True:
                window = await utterance.next_window()
                if utterance.must_be_redrawn:
                    utterance = await self._redraw(utterance, segment.speed)
                    continue
                if window is None:
                    break
                plan = None if self._sampling.repeatable else utterance.plan
                decoded = await self.stages.s3gen.decode(utterance.decoder, window, self._deadline_s(), plan)
                if utterance.must_be_redrawn:  # found while its first window was decoded
                    utterance = await self._redraw(utterance, segment.speed)
                    continue
                utterance.audio_given = True
                if decoded.window.is_last and (utterance.ran_away or utterance.stopped):
                    decoded = replace(decoded, samples=faded_out(decoded.samples, SAMPLE_RATE_HZ))
                spoken = decoded.samples
                if segment.speed != 1.0:
                    decoded = replace(decoded, samples=time_scale.feed(decoded.samples, last=decoded.window.is_last))
                recorder.deliver(decoded)
                self._note_listener()
                figures = utterance.figures(decoded)
                yield AudioChunk(segment.index, self._position_samples, decoded.samples, figures)
                self._position_samples += len(decoded.samples)
                if (words := await utterance.spoken_words(decoded.window, spoken, segment.speed)) is not None:
                    yield words
            await utterance.cancel()
            self._current, self._before = None, tuple(utterance.decoder.speech_tokens)
            yield SegmentDone(segment, utterance.stats(recorder))
        finally:
            self._active_streams.leave(self._playback)
            if self._current is utterance:  # ended early, so the prefetched segment is not wanted either
                await self._drop_all()

    @property
    def token_s(self) -> float:
        """The time in which T3 makes one speech token of the segment being spoken; 0 before that is known."""
        return 0.0 if self._current is None else self._current.token_s

    @property
    def awaited(self) -> bool:
        """Whether a listener waits for the stream's first speech."""
        return self._has_listener and not self.has_spoken

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self._drop_all()
        self._on_closed(self)

    async def _drop_all(self) -> None:
        dropped = [utterance for utterance in (self._current, self._prepared) if utterance is not None]
        self._current = self._prepared = self._to_prepare = None
        self._reader.drop()
        for utterance in dropped:
            await utterance.cancel()

    async def _take(self, segment: Segment) -> _Utterance:
        """Make `segment` the current one; it may have been prefetched."""
        self._check_open()
        prepared, self._prepared, self._to_prepare = self._prepared, None, None
        if prepared is not None and not (
            prepared.segment == replace(segment, speed=prepared.segment.speed)
            and prepared.continues == self._context(segment, self._before)
        ):
            await prepared.cancel()
            prepared = None
        if prepared is not None:
            prepared.promote()
            self._current = prepared
            return prepared
        text = await self._reader.read(segment)
        self._check_open()
        self._current = self._begin(segment, text)
        return self._current

    def _check_open(self) -> None:
        if self._closed:
            raise EngineFailure("The stream was closed.")

    async def _redraw(self, faulty: _Utterance, speed: float) -> _Utterance:
        """The same segment drawn again, by a seed that follows from the stream's."""
        await faulty.cancel()
        self._current = self._begin(faulty.segment, faulty.text, tries=faulty.tries + 1, fault=faulty.fault)
        self._current.plan.speed = speed
        return self._current

    def _begin(
        self,
        segment: Segment,
        text: SegmentText,
        *,
        made_ahead: bool = False,
        tries: int = 0,
        fault: Fault | None = None,
    ) -> _Utterance:
        """`tries`: draws of the segment that were dropped, the last for `fault`."""
        seed = segment_seed(self._sampling.seed, segment.index)
        for number in range(tries):
            seed = segment_seed(seed, number)
        sampling = replace(self._sampling, seed=seed)
        request = T3Request(text.text_tokens, self._voice, sampling, made_ahead, text.runaway_tokens)
        ahead_of = self._current if made_ahead else None
        before = self._before if ahead_of is None else tuple(ahead_of.decoder.speech_tokens)
        context = self._context(segment, before)
        request = replace(request, context=context[0])
        words = None
        if text.words is not None and self.stages.aligner is not None:
            request, source = self.stages.aligner.start(request, guarded=segment.word_guard)
            words = SegmentWords(text.words, len(text.text_tokens), source, guarded=segment.word_guard)
        return _Utterance(
            self.stages,
            segment,
            text,
            request,
            self._pacer,
            self._start_prepared,
            words,
            context,
            tries=tries,
            fault=fault,
        )

    def _context(self, segment: Segment, before: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """T3's and S3Gen's context behind a segment with these speech tokens."""
        continuity = self.stages.continuity
        if not segment.continuity or continuity is None:
            return (), ()
        return continuity.t3_context(before, len(self._voice.t3_prompt_tokens)), continuity.s3gen_context(before)

    def _start_prepared(self) -> None:
        segment = self._to_prepare
        if self._prepared is None and (segment is None or not self._reader.is_ready(segment)):
            return
        self._to_prepare = None
        if self._prepared is not None or segment is None:
            return
        with suppress(InvalidInput):  # speak() will raise it to the caller
            self._prepared = self._begin(segment, self._reader.take(segment), made_ahead=True)

    def _note_listener(self) -> None:
        if self._has_listener:
            self._active_streams.update(self._playback, self._playback.dry_at_s)

    def _deadline_s(self) -> float:
        """When the listener runs dry; now, before the first chunk."""
        now_s = asyncio.get_running_loop().time()
        if not self._has_listener:
            return now_s + OFFLINE_DEADLINE_S
        return now_s + max(0.0, self._playback.lead_s(now_s))


class _Utterance:
    """One segment in the making: a task collects T3's speech tokens while windows are decoded."""

    def __init__(
        self,
        stages: Stages,
        segment: Segment,
        text: SegmentText,
        request: T3Request,
        pacer: StreamPacer | None,
        on_ended: Callable[[], None],
        words: SegmentWords | None = None,
        continues: tuple[tuple[int, ...], tuple[int, ...]] = ((), ()),
        *,
        tries: int = 0,
        fault: Fault | None = None,
    ) -> None:
        """`continues`: T3's and S3Gen's context. `tries`: draws that were dropped, the last for `fault`."""
        self._words = words
        self.tries, self.fault = tries, fault
        self.audio_given = self.stopped = False
        self._finding: Finding | None = None  # in this draw
        self._cut_tokens: int | None = None  # at which the speech is stopped; not done yet
        self._paced = pacer is not None
        self.segment, self.text = segment, text
        self.text_tokens = len(text.text_tokens)
        self._progress = TokenProgress()
        self.decoder = SegmentDecoder(request.voice, request.sampling.seed, self._progress.speech_tokens, continues[1])
        self.continues = continues
        self._generation = stages.t3.start(request)
        self.plan = SegmentPlan(stages.schedule, self._progress, pacer, self._generation.set_target)
        self._on_ended = on_ended
        self._observer = stages.observer
        self._silence_tokens = stages.silence_tokens
        self._failure: EngineFailure | None = None
        self._awaited_tokens = 0
        self._gives_up_draw = False
        self._enough = asyncio.Event()  # the awaited tokens have come, or no more will
        self._collector = asyncio.create_task(self._collect(), name=f"t3-segment-{segment.index}")

    async def _collect(self) -> None:
        clock, progress = asyncio.get_running_loop().time, self._progress
        started_s = clock()
        try:
            async for speech_tokens in self._batches():
                is_first = not progress.speech_tokens
                progress.add(speech_tokens, clock() - started_s)
                if is_first:
                    self._observer.segment_prefilled(progress.first_token_s)
                if len(progress.speech_tokens) >= self._awaited_tokens:
                    self._enough.set()
            self._observer.segment_generated(progress.last_token_s, len(progress.speech_tokens))
        except EngineFailure as failure:
            self._failure = failure
        except Exception as error:  # a bug of ours must end the segment too, not block it
            self._failure = EngineFailure(f"T3 failed: {error!r}")
            self._failure.__cause__ = error
        progress.ended = self._cut_tokens is None
        self._enough.set()
        self._on_ended()

    async def _batches(self) -> AsyncIterator[list[int]]:
        """T3's speech tokens as they come; with a guard, those that were checked, up to the end that it finds."""
        words, generation = self._words, self._generation
        if words is None or not words.guarded:
            while speech_tokens := await generation.next_speech_tokens():
                yield speech_tokens
            return
        held: list[int] = []
        while speech_tokens := await generation.next_speech_tokens():
            held += speech_tokens
            if len(held) < words.batch_tokens:
                continue
            checked = await self._checked(words, held)
            yield checked
            if len(checked) < len(held) or self._stops:
                return
            held = []
        if held:
            yield await self._checked(words, held)
        if not self._stops:
            await self._check_end(words)

    @property
    def _stops(self) -> bool:
        """Whether no more tokens of this draw are wanted."""
        return self._gives_up_draw or self._cut_tokens is not None

    async def _checked(self, words: SegmentWords, speech_tokens: list[int]) -> list[int]:
        """The new speech tokens, up to one that shows a fault by which the draw is given up or stopped."""
        made = self._progress.speech_tokens
        while (finding := await words.update([*made, *speech_tokens])) is not None:
            # not before the tokens that were given already: all rows but the last of those had been checked
            count = max(0, finding.row + 1 - len(made))
            self._note(finding, finding.row + 1)
            if not self._stops and finding.end_row is not None:
                self._cut_tokens = finding.end_row
            if self._stops:
                await self._generation.cancel()
                return speech_tokens[:count]
        return speech_tokens

    async def _check_end(self, words: SegmentWords) -> None:
        """T3 has stopped by itself."""
        made = self._progress.speech_tokens
        cut_short = self._generation.hit_token_limit or self._generation.hit_runaway_limit
        speech = made[: len(made) - self._silence_tokens]
        while (finding := await words.update(speech, ended=not cut_short)) is not None:
            self._note(finding, len(made))
            if finding.fault == "early_stop":
                break

    def _note(self, finding: Finding, tokens: int) -> None:
        """A fault was found when `tokens` existed. Decides whether it can still be kept from the listener."""
        early = not self.audio_given if self._paced else self.plan.needs_more_than(tokens)
        self._finding, self.fault = finding, finding.fault
        self._gives_up_draw = self._gives_up_draw or (early and self.tries < _MAX_REDRAWS)

    @property
    def must_be_redrawn(self) -> bool:
        """Whether the draw is given up: none of its audio was given, and it has a fault."""
        return self._gives_up_draw and not self.audio_given

    def _apply_cut(self) -> None:
        """End the speech behind its last word, or behind what was decoded already."""
        assert self._cut_tokens is not None
        tokens = self._progress.speech_tokens
        del tokens[max(self._cut_tokens, self.plan.decoded_tokens) :]
        tokens.extend([SILENCE_SPEECH_TOKEN] * SILENCE_TAIL_TOKENS)  # a last window, to fade out in
        self._cut_tokens, self.stopped, self._progress.ended = None, True, True

    @property
    def ran_away(self) -> bool:
        """Whether T3 was stopped in the middle of its speech, because the text cannot take that long."""
        return self._generation.hit_runaway_limit

    @property
    def token_s(self) -> float:
        """As TokenProgress.token_s."""
        return self._progress.token_s

    @property
    def ended(self) -> bool:
        """Whether T3 has finished the segment."""
        return self._progress.ended

    async def next_window(self) -> Window | None:
        """Returns the next window once it is due; None after the segment's last."""
        clock = asyncio.get_running_loop().time
        while True:
            if self._failure is not None:
                raise self._failure
            if self.must_be_redrawn:
                return None
            if self._cut_tokens is not None and self._paced:
                self._apply_cut()
            window = self.plan.next(clock())
            if window is None and self._cut_tokens is not None:
                self._apply_cut()  # not before the windows that are due without it, so that a seed repeats
                continue
            if window is not None or self.plan.finished:
                return window
            await self._wait(self.plan.wait)

    async def _wait(self, wait: Wait) -> None:
        self._awaited_tokens = wait.available_tokens
        self._enough.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(wait.for_s):
                await self._enough.wait()

    def figures(self, decoded: Decoded) -> WindowFigures:
        window, made = decoded.window, len(self._progress.speech_tokens)
        new = window.stop - window.start
        return WindowFigures(window.index, new, made, decoded.queue_s, decoded.decode_s)

    async def spoken_words(self, window: Window, samples: Samples, speed: float) -> Words | None:
        """Returns the words that end in a window's samples, at the times of `speed`; None if none end or begin there.

        `samples` are those before their speed was changed. Raises EngineFailure.
        """
        if self._words is None or not self.segment.word_times:
            return None
        tokens = self._progress.speech_tokens
        if not self._words.guarded:  # otherwise the collector reads them
            await self._words.update(tokens[: len(tokens) - self._silence_tokens] if self._progress.ended else tokens)
        words = at_speed(self._words.decoded(samples, window.stop, is_last=window.is_last), speed)
        begun = () if window.is_last else at_speed(self._words.begun(), speed)
        return Words(self.segment.index, words, begun) if words or begun else None

    def stats(self, recorder: SegmentStatsRecorder) -> SegmentStats:
        return recorder.stats(
            speech_tokens=len(self._progress.speech_tokens),
            t3_s=self._progress.last_token_s,
            hit_token_limit=self._generation.hit_token_limit,
            hit_runaway_limit=self._generation.hit_runaway_limit,
            word_guard=self._guard_report(),
        )

    def _guard_report(self) -> WordGuardReport | None:
        if self.fault is None or self._words is None:
            return None
        action: Literal["stopped", "reported", "retried"] = "retried"
        if self._finding is not None:
            action = "stopped" if self.stopped else "reported"
        return WordGuardReport(self.fault, action, self.tries, self._words.spoken_chars)

    def promote(self) -> None:
        """The segment is no longer prefetched but current: T3 gives it the priority of one."""
        self._generation.promote()

    async def cancel(self) -> None:
        """Stop T3 and free the request's resources. Idempotent, and without effect after the end."""
        self._collector.cancel()
        await asyncio.gather(self._collector, return_exceptions=True)
        await self._generation.cancel()
        if self._words is not None:
            self._words.close()
