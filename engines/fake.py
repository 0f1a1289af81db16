"""A fake engine without a model: deterministic tones, scripted latency and failures, and counts of its resources.

For tests of the server and of clients. Time passes only in `asyncio.sleep`, so it also runs on a virtual clock.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import threading
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache

import numpy as np

from engines.api import (
    NULL_OBSERVER,
    AudioChunk,
    DeviceMemory,
    EngineInfo,
    Event,
    Limits,
    Observer,
    Samples,
    Segment,
    SegmentDone,
    SegmentStarted,
    SegmentStats,
    T3Use,
    WindowFigures,
    WordGuardReport,
    Words,
    WordTime,
)
from engines.config import Sampling
from engines.errors import EngineBusy, EngineFailure, InvalidInput
from engines.health import Health
from engines.model_spec import (
    MEL_BANDS,
    SAMPLE_RATE_HZ,
    SAMPLES_PER_TOKEN,
    SPEAKER_EMBEDDING_DIM,
    SPEECH_CODES,
    X_VECTOR_DIM,
)
from engines.playback import PlaybackClock
from engines.text.languages import ENGLISH, NAMES, scripts_of
from engines.text.reading import Reading
from engines.text.spoken import SpokenText
from engines.time_scale import TimeScale, scaled_samples
from engines.voice import MODEL, Voice
from engines.voice_report import VoiceReport, VoiceWarning

_MIN_REFERENCE_BYTES = 1000
_TAGS = ("[clear throat]", "[sigh]", "[laugh]")


@dataclass(frozen=True)
class Abilities:
    """What the model of a fake engine has, by the names of EngineInfo. These are Turbo's."""

    sampling: Sampling = field(default_factory=Sampling)
    guidance: bool = False
    has_exaggeration: bool = False
    has_min_p: bool = False
    languages: tuple[str, ...] = ()
    missing_languages: tuple[tuple[str, str], ...] = ()


# as of Chatterbox Multilingual
MULTILINGUAL = Abilities(Sampling(top_k=0, top_p=1.0, min_p=0.05, cfg_weight=0.5), True, True, True, tuple(NAMES))


@dataclass(frozen=True)
class Script:
    """The script of a fake engine: latencies, and exceptions to raise."""

    tokens_per_char: float = 1.0
    token_s: float = 0.0  # per speech token
    decode_s: float = 0.0  # per window
    decoders: int | None = None  # windows of all streams that are decoded at the same time; None: no limit
    first_hop_tokens: int = 10
    hop_tokens: int = 25
    schedule: str = "balanced"  # for streams with a seed
    warm_up_s: float = 0.0
    voice_s: float = 0.0  # to make a voice
    close_s: float = 0.0  # to close a stream
    open_failure: Exception | None = None
    language_failure: Exception | None = None  # raised when a language is loaded
    warm_up_failure: Exception | None = None
    failure: Exception | None = None  # raised in segment `fail_segment` after `fail_after_chunks` of its chunks
    fail_segment: int = 0
    fail_after_chunks: int = 0
    failures: int | None = None  # how often it is raised in all; None: always
    similarity: float | None = None  # of every voice and its speech; None: not measured, as by random weights
    runaway_from: int | None = None  # from this segment on, speech goes on for longer than its text can take
    underruns_from: int | None = None  # with at least this number of streams, each segment reports an underrun
    device_memory: DeviceMemory | None = None
    hangs_on: str = ""  # text in a segment whose first window is then decoded for ever, on a thread; empty: none
    word_times: bool = True  # whether it says when words are spoken: in proportion to their characters
    continuity: bool = True  # whether it takes segments that go on from the one before
    abilities: Abilities = field(default_factory=Abilities)
    word_guard: WordGuardReport | None = None  # what the guard reports of each segment that asks for it
    freezes_on: str = ""  # text in a segment that then blocks the event loop for ever


class FakeEngine:
    """An `engines.api.Engine`. `working` counts the segments in progress; `at_rest` engines hold no resources."""

    def __init__(
        self,
        script: Script | None = None,
        *,
        max_streams: int = 4,
        default_voice: bool = True,
        other_voices: Mapping[str, Voice] | None = None,
        observer: Observer = NULL_OBSERVER,
        model: str = "fake",
    ) -> None:
        """`model`: its name; voices of engines with other names are voices of other models."""
        self.script = script or Script()
        self.observer = observer
        self.info = EngineInfo(
            model=model,
            device="cpu",
            t3_runtime="fake",
            s3gen_runtime="fake",
            limits=Limits(max_text_chars_per_segment=1000, max_speech_tokens_per_segment=1000, max_streams=max_streams),
            random_weights=self.script.similarity is None,
            notice="This engine makes tones, not speech.",
            tags=_TAGS,
            voice_models=(model,),
            word_times=self.script.word_times,
            word_times_notice="" if self.script.word_times else "This engine's script has no word times.",
            continuity=self.script.continuity,
            **{each.name: getattr(self.script.abilities, each.name) for each in fields(Abilities)},
        )
        scripts = {script for language in self.info.languages or (ENGLISH,) for script in scripts_of(language)}
        self.spoken = SpokenText(tuple(sorted(scripts)), tags=_TAGS)
        self.last_sampling: Sampling | None = None  # of the stream that was opened last
        self.loaded_languages: list[str] = []
        self.spoken_languages: list[str] = []  # of each segment that began
        self.health = Health()
        self._suffix = b"" if model == "fake" else model.encode()  # of what a voice is made from
        self.default_voice = fake_voice("default", self._suffix) if default_voice else None
        self.other_voices: Mapping[str, Voice] = other_voices or {}
        self.streams: set[FakeStream] = set()
        self.working = 0  # segments in progress
        self.opened_streams = 0  # in all
        self.made_samples = 0
        self.done_segments = 0
        self.cancelled_segments = 0
        self.failures = 0  # raised
        self.read_positions = self.cached_positions = 0  # of T3's prompts, in all
        self.closed = False
        self.progress = asyncio.Event()  # set when a chunk was yielded
        self.decoders = asyncio.Semaphore(self.script.decoders or max_streams)

    @property
    def at_rest(self) -> bool:
        """Whether all streams are closed and no segment is in progress."""
        return not self.streams and self.working == 0

    def count_text_tokens(self, word: str) -> int:
        return len(word)

    def device_memory(self) -> DeviceMemory | None:
        return self.script.device_memory

    def read_prompt(self, voice: Voice, segment: Segment) -> None:
        """Count a prompt: the voice's positions are cached, the text's are computed."""
        self.read_positions += len(segment.text)
        self.cached_positions += 1 + len(voice.t3_prompt_tokens)

    def change_working(self, by: int) -> None:
        """Add `by` to the segments in progress."""
        self.working += by
        share = self.working / self.info.limits.max_streams
        self.observer.t3_used(T3Use(share, self.read_positions, self.cached_positions))

    async def make_voice(self, audio: bytes, *, name: str, normalize_loudness: bool = True) -> Voice:
        """Make a voice that depends on the bytes. Bytes that start with b"broken" are not decodable.

        Bytes that start with b"noisy" make a voice with a warning.
        """
        await asyncio.sleep(self.script.voice_s)
        if not audio:
            raise _audio_error("is empty", "an audio file", "AUDIO_EMPTY")
        size = f"{len(audio)} bytes"
        if audio.startswith(b"broken"):
            raise _audio_error(f"cannot be decoded ({size})", "an audio file", "AUDIO_NOT_DECODABLE")
        if len(audio) < _MIN_REFERENCE_BYTES:
            raise _audio_error(f"is too short ({size})", "more than 5 s", "AUDIO_TOO_SHORT")
        made = fake_voice(name, audio + self._suffix)
        made = _reported(made, noisy=audio.startswith(b"noisy"), levelled=normalize_loudness)
        return replace(made, metadata={**made.metadata, MODEL: self.info.model})

    async def similarity(self, voice: Voice, speech: Samples) -> float | None:
        assert len(speech) >= 0.2 * SAMPLE_RATE_HZ
        return self.script.similarity

    def schedule_now(self, voice: Voice, max_streams: int) -> str:
        return self.script.schedule

    async def load_language(self, language: str) -> None:
        self.loaded_languages.append(language)
        if self.script.language_failure is not None:
            raise self.script.language_failure

    async def open(self, voice: Voice, sampling: Sampling) -> FakeStream:
        if self.script.open_failure is not None:
            raise self.script.open_failure
        if len(self.streams) >= self.info.limits.max_streams:
            raise EngineBusy(f"All {self.info.limits.max_streams} streams are in use; try again later.")
        stream = FakeStream(self, voice, sampling)
        self.streams.add(stream)
        self.opened_streams += 1
        self.last_sampling = sampling
        return stream

    async def warm_up(self) -> None:
        await asyncio.sleep(self.script.warm_up_s)
        if self.script.warm_up_failure is not None:
            raise self.script.warm_up_failure

    async def close(self) -> None:
        for stream in list(self.streams):
            await stream.close()
        self.closed = True


class FakeStream:
    """An `engines.api.SpeechStream`. `prepared` is the announced segment that is not spoken yet."""

    def __init__(self, engine: FakeEngine, voice: Voice, sampling: Sampling) -> None:
        self._engine = engine
        self._voice = voice
        self.sampling = sampling
        self._position_samples = 0
        self._closed = False
        self.prepared: Segment | None = None
        self.prepared_hits = 0  # spoken segments that were prepared
        self._listener = PlaybackClock(SAMPLE_RATE_HZ)

    def prepare(self, segment: Segment) -> None:
        self.prepared = segment

    async def speak(self, segment: Segment) -> AsyncGenerator[Event, None]:
        if self._closed:
            raise EngineFailure("The stream is closed.")
        self.prepared_hits += self.prepared is not None and replace(self.prepared, speed=segment.speed) == segment
        self.prepared = None
        audio, time_scale = self._audio(segment), TimeScale(segment.speed)
        clock = asyncio.get_running_loop().time
        started_s, ttfa_s = clock(), 0.0
        self._listener.begin_segment(started_s)
        with self._working():
            self._engine.read_prompt(self._voice, segment)
            self._engine.spoken_languages.append(segment.language)
            yield SegmentStarted(segment, len(segment.text))
            windows = 0
            for windows, (start, end) in enumerate(self._windows(len(audio) // SAMPLES_PER_TOKEN), start=1):
                self._fail_if_scripted(segment, windows - 1)
                queue_s = await self._make_window(segment, start, end)
                figures = WindowFigures(windows - 1, end - start, end, queue_s, self._engine.script.decode_s)
                samples = audio[start * SAMPLES_PER_TOKEN : end * SAMPLES_PER_TOKEN]
                samples = time_scale.feed(samples, last=end * SAMPLES_PER_TOKEN == len(audio))
                self._engine.made_samples += len(samples)
                self._engine.progress.set()
                if windows == 1:
                    ttfa_s = clock() - started_s
                self._listener.deliver(clock(), len(samples))
                yield AudioChunk(segment.index, self._position_samples, samples, figures)
                self._position_samples += len(samples)
                if segment.word_times and (words := _words(segment, len(audio), start, end)) is not None:
                    yield words
            self._fail_if_scripted(segment, windows)
        tokens = len(audio) // SAMPLES_PER_TOKEN
        self._engine.observer.segment_generated(tokens * self._engine.script.token_s, tokens)
        stats = SegmentStats(
            speech_tokens=tokens,
            samples=scaled_samples(len(audio), segment.speed),
            windows=windows,
            ttfa_s=ttfa_s,
            max_gap_s=self._listener.max_gap_s,
            min_buffer_s=self._listener.min_buffer_s,
            underruns=self._listener.underruns + self._scripted_underruns(),
            underrun_s=self._listener.underrun_s,
            hit_token_limit=tokens == self.sampling.max_speech_tokens,
            hit_runaway_limit=self._ran_away(segment),
            word_guard=self._engine.script.word_guard if segment.word_guard else None,
        )
        yield SegmentDone(segment, stats)

    async def _make_window(self, segment: Segment, start: int, end: int) -> float:
        """Wait as long as T3's steps and the decoding take, and call the observer as a real engine does.

        Returns how long the window waited for a decoder.
        """
        script, observer, clock = self._engine.script, self._engine.observer, asyncio.get_running_loop().time
        t3_s = (end - start) * script.token_s
        await asyncio.sleep(t3_s)
        queued_s = clock()
        async with self._engine.decoders:
            queue_s = clock() - queued_s
            with observer.calling("s3gen"):
                await self._hang_if_scripted(segment)
                await asyncio.sleep(script.decode_s)
        if start == 0:
            observer.segment_prefilled(t3_s)
        observer.step_ran(script.token_s, self._engine.working)
        observer.batch_ran(1)
        observer.stage_ran("flow", script.decode_s)
        return queue_s

    def _audio(self, segment: Segment) -> Samples:
        """Returns the segment's tone. Raises InvalidInput for what a real engine does not speak."""
        self._engine.spoken.prepare(segment.text)
        tokens = math.ceil(len(segment.text) * self._engine.script.tokens_per_char)
        tokens = min(tokens, self.sampling.max_speech_tokens)
        return tone(segment.text, self._voice, self.sampling.seed, tokens * SAMPLES_PER_TOKEN)

    def _ran_away(self, segment: Segment) -> bool:
        first = self._engine.script.runaway_from
        return first is not None and segment.index >= first

    def _scripted_underruns(self) -> int:
        min_streams = self._engine.script.underruns_from
        return int(min_streams is not None and len(self._engine.streams) >= min_streams)

    def _windows(self, tokens: int) -> Iterator[tuple[int, int]]:
        start, hop = 0, self._engine.script.first_hop_tokens
        while start < tokens:
            yield start, min(start + hop, tokens)
            start, hop = start + hop, self._engine.script.hop_tokens

    def _fail_if_scripted(self, segment: Segment, chunks: int) -> None:
        script = self._engine.script
        due = (segment.index, chunks) == (script.fail_segment, script.fail_after_chunks)
        if script.failure is not None and due and self._engine.failures != script.failures:
            self._engine.failures += 1
            raise script.failure

    async def _hang_if_scripted(self, segment: Segment) -> None:
        script = self._engine.script
        if script.freezes_on and script.freezes_on in segment.text:
            threading.Event().wait()
        if script.hangs_on and script.hangs_on in segment.text:
            # on the default executor, whose threads keep the interpreter from ending, as those of libraries do
            decoding = asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
            while not decoding.done():  # a call into a library cannot be cancelled
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([decoding])

    @contextmanager
    def _working(self) -> Iterator[None]:
        self._engine.change_working(+1)
        try:
            yield
            self._engine.done_segments += 1
        except BaseException:
            self._engine.cancelled_segments += 1
            raise
        finally:
            self._engine.change_working(-1)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.prepared = None
            try:
                await asyncio.sleep(self._engine.script.close_s)
            finally:
                self._engine.streams.discard(self)


def _words(segment: Segment, samples: int, start_token: int, stop_token: int) -> Words | None:
    """The words that end in a window: each char of the spoken text takes the same time."""
    reading = segment.reading or Reading(segment.text, segment.text)
    per_char = samples / len(segment.text) / segment.speed
    start, stop = (scaled_samples(token * SAMPLES_PER_TOKEN, segment.speed) for token in (start_token, stop_token))
    times = []
    for word in re.finditer(r"\w+", reading.spoken):
        start_char, end_char = reading.written_span(*word.span())
        written, at = reading.written[start_char:end_char], (word.start() * per_char, word.end() * per_char)
        times.append(WordTime(written, start_char, end_char, round(at[0]), round(at[1]), word[0]))
    ended = tuple(time for time in times if start < time.end_sample <= stop)
    begun = tuple(time for time in times if time.start_sample < stop < time.end_sample)
    return Words(segment.index, ended, begun) if ended or begun else None


def _reported(voice: Voice, *, noisy: bool, levelled: bool) -> Voice:
    """The voice with a report, and the word of how its recording was levelled."""
    warnings = (VoiceWarning("NOISY", "The speech is only 5 dB above the noise: record in a quieter place."),)
    report = VoiceReport(0.5, 6.0, 0.9, 5.0 if noisy else 40.0, warnings if noisy else ())
    return replace(voice, metadata=report.in_metadata({"levelled": str(levelled)}))


def _audio_error(problem: str, allowed: str, reason: str) -> InvalidInput:
    return InvalidInput("audio", f"audio {problem}; it must be {allowed}.", reason, value=problem, allowed=allowed)


def tone(text: str, voice: Voice, seed: int, samples: int) -> Samples:
    """A tone whose pitch depends on text, voice and seed: (samples,) float32, half of full scale, read-only."""
    return _tone(f"{text}\0{voice.key}\0{seed}", samples)


@lru_cache(maxsize=64)  # so that a bench that repeats a text does not measure sines
def _tone(name: str, samples: int) -> Samples:
    digest = hashlib.sha256(name.encode()).digest()
    pitch_hz = 100.0 + int.from_bytes(digest[:2]) / 65536 * 300.0
    phase = 2 * np.pi * pitch_hz / SAMPLE_RATE_HZ * np.arange(samples)
    wave: Samples = (0.5 * np.sin(phase)).astype(np.float32)
    wave.flags.writeable = False
    return wave


def fake_voice(name: str, audio: bytes = b"", *, prompt_tokens: int = 25) -> Voice:
    """A valid Voice with random numbers that depend on `audio`."""
    rng = np.random.default_rng(list(hashlib.sha256(audio).digest()))
    return Voice(
        name=name,
        speaker_embedding=rng.standard_normal(SPEAKER_EMBEDDING_DIM, dtype=np.float32),
        t3_prompt_tokens=rng.integers(0, SPEECH_CODES, prompt_tokens),
        s3gen_prompt_tokens=rng.integers(0, SPEECH_CODES, prompt_tokens),
        s3gen_prompt_mel=rng.standard_normal((2 * prompt_tokens, MEL_BANDS), dtype=np.float32),
        x_vector=rng.standard_normal(X_VECTOR_DIM, dtype=np.float32),
    )
