"""The interface between the server and a speech engine.

The real pipeline and the fake engine implement these protocols. This module imports no model library.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from engines.config import Sampling
from engines.health import Health
from engines.model_spec import SAMPLE_RATE_HZ
from engines.text.languages import ENGLISH
from engines.text.reading import Reading
from engines.voice import Voice

Samples = npt.NDArray[np.float32]  # (n,) mono, 24 kHz, full scale 1.0


@dataclass(frozen=True)
class Limits:
    """The limits of an engine, published to clients."""

    max_text_chars_per_segment: int
    max_speech_tokens_per_segment: int
    max_streams: int
    max_text_tokens_per_segment: int = 1000  # longer text is spoken less well: callers split it
    max_offline_streams: int | None = None  # all that fit into memory, in real time or not; None: `max_streams`


@dataclass(frozen=True)
class EngineInfo:
    """A description of the engine. `notice` is a sentence for people, e.g. that random weights make noise, or empty.

    `refused_runtimes` are (runtime, reason) of those that were requested but failed their check on this machine.
    `failed_captures` are (runtime, sizes of calls): those that should be CUDA graphs and run eagerly instead.
    `tags` are the words in brackets that the model speaks as sounds, e.g. "[laugh]".
    `continuity`: whether a segment can go on from the speech of the one before.
    `word_times`: whether it says when words are spoken; if not, `word_times_notice` is a sentence that says why.
    `voice_models` are the models whose voices it speaks, by the names in a voice's metadata; empty: every voice.
    `decode` is how S3Gen decodes, "reference" or "cached"; empty for an engine without windows. `setting_reason` is a
    sentence with the figures of what was measured to choose it; empty if nothing was to be chosen. `load` is what one
    stream then needs, in seconds of computing per second of audio; None if it was not measured.
    `sampling` has the model's defaults: they hold where a client does not choose. `guidance`: whether the model can be
    guided, by `Sampling.cfg_weight`; `has_exaggeration` and `has_min_p` say the same of these fields. `languages` are
    the languages that it speaks, by their ISO 639-1 codes; empty: English alone, without a choice. `missing_languages`
    are (language, package or file) of those among them that cannot be spoken here, because that is missing.
    """

    model: str
    device: str
    t3_runtime: str
    s3gen_runtime: str
    limits: Limits
    random_weights: bool = False
    clones_speakers: bool = True  # False: a model of few voices, whose clones are among these
    notice: str = ""
    sample_rate_hz: int = SAMPLE_RATE_HZ
    refused_runtimes: tuple[tuple[str, str], ...] = ()
    failed_captures: tuple[tuple[str, int], ...] = ()
    tags: tuple[str, ...] = ()  # paralinguistic tags that the model speaks, such as "[laugh]"
    voice_models: tuple[str, ...] = ()
    decode: str = ""
    setting_reason: str = ""
    load: float | None = None
    word_times: bool = False
    word_times_notice: str = ""
    continuity: bool = False
    sampling: Sampling = field(default_factory=Sampling)
    guidance: bool = False
    has_exaggeration: bool = False
    has_min_p: bool = False
    languages: tuple[str, ...] = ()
    missing_languages: tuple[tuple[str, str], ...] = ()

    @property
    def languages_here(self) -> tuple[str, ...]:
        """`languages` without those that cannot be spoken here."""
        missing = dict(self.missing_languages)
        return tuple(code for code in self.languages if code not in missing)

    @property
    def default_language(self) -> str:
        """The language of a text that names none: English, or the first one of a model without it."""
        return ENGLISH if not self.languages or ENGLISH in self.languages else self.languages[0]


@dataclass(frozen=True)
class Segment:
    """Text between two flushes or sentence ends. `index` counts from 0 within the stream.

    `text` is what is spoken. `reading` says what was written for it, if that is something else.
    `speed` is that of its speech, at the voice's pitch: 1 is the voice's own; see time_scale.py.
    `language` is one of `info.languages`; empty: `info.default_language`.
    """

    index: int
    text: str
    speed: float = 1.0
    word_times: bool = False  # whether Words events are wanted; only for engines whose `info.word_times` is True
    word_guard: bool = False  # whether faults of its words are looked for; likewise
    continuity: bool = False  # whether it goes on from the speech of the segment before; only with `info.continuity`
    reading: Reading | None = None
    language: str = ""

    @property
    def written(self) -> str:
        """The text as it was written."""
        return self.text if self.reading is None else self.reading.written


@dataclass(frozen=True)
class SegmentStarted:
    """Processing of a segment began. `text_tokens` is its length after normalisation and tokenization."""

    segment: Segment
    text_tokens: int


@dataclass(frozen=True)
class WindowFigures:
    """Measurements of the window that a chunk was decoded from, in seconds of wall time."""

    index: int  # within its segment
    new_speech_tokens: int  # decoded into the chunk
    made_speech_tokens: int  # of the segment, when the chunk was yielded
    queue_s: float  # wait for the device
    decode_s: float


@dataclass(frozen=True)
class AudioChunk:
    """The final samples of one window. They start exactly where the previous chunk ended."""

    segment_index: int
    first_sample: int  # on the stream's timeline; 0 is the first sample of the first segment
    samples: Samples
    window: WindowFigures | None = None  # None for engines that do not decode in windows


@dataclass(frozen=True)
class WordTime:
    """When a word is spoken: samples [start_sample, end_sample) of its segment, at the engine's rate.

    `text` is a part of the segment's text, [start_char, end_char); `spoken` is what was said for it.
    """

    text: str
    start_char: int
    end_char: int
    start_sample: int
    end_sample: int
    spoken: str


@dataclass(frozen=True)
class Words:
    """The words that end in the chunk before, in order. `begun`: those that also begin there and go on behind it."""

    segment_index: int
    words: tuple[WordTime, ...]
    begun: tuple[WordTime, ...] = ()


@dataclass(frozen=True)
class WordGuardReport:
    """What the guard on words found in a segment, and what was done.

    action   retried: the segment was drawn again before any of its audio was given; stopped: the speech was faded out
             behind its last word; reported: nothing, because its audio had been given
    retries  draws that were dropped
    """

    fault: Literal["late_end", "repeated", "invented_tail", "early_stop"]
    action: Literal["retried", "stopped", "reported"]
    retries: int
    spoken_chars: int  # of the text, before which its words were spoken


@dataclass(frozen=True)
class SegmentStats:
    """Measurements of a segment, and the underruns of a real-time listener. Seconds of wall time."""

    speech_tokens: int = 0
    samples: int = 0
    windows: int = 0
    ttfa_s: float = 0.0  # speak() called -> first chunk yielded
    t3_s: float = 0.0
    s3gen_s: float = 0.0
    max_gap_s: float = 0.0  # longest wait between two chunks
    min_buffer_s: float | None = None  # least audio the listener had left when a chunk arrived; None for a single chunk
    underruns: int = 0
    underrun_s: float = 0.0
    hit_token_limit: bool = False  # T3 stopped at max_speech_tokens
    hit_runaway_limit: bool = False  # T3 was stopped: the speech was far longer than the text can take
    word_guard: WordGuardReport | None = None  # None: off, or nothing was found


@dataclass(frozen=True)
class SegmentDone:
    """The last event of a segment. The sum of its chunks' samples equals `stats.samples`."""

    segment: Segment
    stats: SegmentStats = field(default_factory=SegmentStats)


Event = SegmentStarted | AudioChunk | Words | SegmentDone


@dataclass(frozen=True)
class T3Use:
    """The KV cache that T3's running requests use, and prompt positions since the engine was built."""

    kv_cache_share: float = 0.0  # in use, 0 to 1
    read_positions: int = 0  # prompt positions computed
    cached_positions: int = 0  # prompt positions taken from the prefix cache


@dataclass(frozen=True)
class DeviceMemory:
    """An accelerator's memory; `used_bytes` counts all processes."""

    used_bytes: int
    total_bytes: int


class Observer:
    """Callbacks for metrics and traces. This base class ignores all of them.

    A window's own measurements are in its chunk (WindowFigures). The callbacks run on the event loop and on the
    engine's threads: an override must return quickly and must not raise. Those marked * run in the context
    (contextvars) of the task that speaks the segment.
    """

    def segment_prefilled(self, seconds: float) -> None:
        """* T3 returned a segment's first speech tokens, `seconds` after its request."""

    def segment_generated(self, seconds: float, speech_tokens: int) -> None:
        """* T3 finished a segment, `seconds` after its request."""

    def step_ran(self, seconds: float, sequences: int) -> None:
        """T3 ran one step for a batch of `sequences` segments."""

    def calling(self, stage: str) -> AbstractContextManager[None]:
        """Entered before a blocking call of T3 ("t3") or S3Gen ("s3gen"), and left when it has returned.

        A watchdog finds a call that never returns by it.
        """
        return nullcontext()

    def t3_used(self, use: T3Use) -> None:
        """T3's use of its KV cache changed: after each step, and when a segment was dropped."""

    def batch_ran(self, windows: int) -> None:
        """S3Gen decoded a batch of `windows`."""

    def stage_ran(self, stage: str, seconds: float) -> None:
        """One stage of S3Gen ran for a batch: encoder, cfm or vocoder.

        A runtime that cannot time the first two separately, as on a GPU, reports "flow"; one that decodes whole
        segments reports "waveform".
        """

    def window_rejected(self, runtime: str) -> None:
        """The output of this runtime for a window was not audio; the reference runtime decodes the window again."""


NULL_OBSERVER = Observer()


class SpeechStream(Protocol):
    """A stream of segments in and audio out, in order. It belongs to one task and is not thread-safe."""

    def prepare(self, segment: Segment) -> None:
        """Announce the next segment, optionally: its speech tokens may be generated ahead."""

    def speak(self, segment: Segment) -> AsyncGenerator[Event, None]:
        """Yields SegmentStarted, then AudioChunks as they are decoded, then SegmentDone; Words follow a chunk if the
        segment asks for them.

        Raises InvalidInput before the first event: with reason TEXT_EMPTY if the text holds nothing to speak,
        SCRIPT_UNSUPPORTED if its letters are all of scripts that the model does not speak, or if it is too long.
        Raises TimeLimitExceeded before the first event if the language's front end does not read the text in time, and
        EngineFailure at any point. Closing the generator early cancels the segment and the prepared one, and
        frees their resources before it returns.
        """
        ...

    async def close(self) -> None:
        """Cancel all work and free its resources (KV cache, queued windows, slot). Idempotent."""


class Engine(Protocol):
    """A speech engine: text and a Voice in, audio out."""

    @property
    def info(self) -> EngineInfo: ...

    @property
    def health(self) -> Health:
        """Unhealthy while new streams would fail, e.g. while a failed T3 backend restarts."""

    @property
    def default_voice(self) -> Voice | None:
        """The checkpoint's first built-in voice, or None."""

    @property
    def other_voices(self) -> Mapping[str, Voice]:
        """The checkpoint's other built-in voices by their ids."""
        ...

    def count_text_tokens(self, word: str) -> int:
        """Returns the text tokens of a word, or of a part of it, with the space before it if it has one.

        The counts of a text's words add up to its own, and ASCII text has no more tokens than characters. Fast: it is
        called for every word of a stream.
        """
        ...

    async def make_voice(self, audio: bytes, *, name: str, normalize_loudness: bool = True) -> Voice:
        """Make a Voice from the bytes of an audio file of any common format, sample rate and channel count.

        The recording is brought to -27 LUFS first unless `normalize_loudness` is False. A VoiceReport in the voice's
        metadata says which part was used. Raises InvalidInput with reason AUDIO_EMPTY, AUDIO_TOO_LARGE (> 32 MiB, also
        when decompressed), AUDIO_NOT_DECODABLE, AUDIO_TOO_SHORT (<= 5 s), AUDIO_TOO_LONG (> 120 s), AUDIO_SILENT or
        AUDIO_TOO_LITTLE_SPEECH (< 5 s).
        """
        ...

    async def similarity(self, voice: Voice, speech: Samples) -> float | None:
        """Returns the cosine of the voice's speaker embedding and that of `speech`, of at least 0.2 s.

        None for an engine without a net that embeds speakers.
        """
        ...

    def schedule_now(self, voice: Voice, max_streams: int) -> str:
        """Returns the schedule that a repeatable stream of this voice needs, by the load at this moment.

        Its windows do not follow the load later, which grows to `max_streams` streams at most. Empty for an engine
        without windows.
        """
        ...

    async def load_language(self, language: str) -> None:
        """Load what a language of `info.languages` needs, so that no segment waits for it.

        Raises InvalidInput with reason LANGUAGE_PACKAGE_MISSING if something that it needs is not here,
        TimeLimitExceeded with reason LANGUAGE_TIMEOUT if it does not load in time.
        """

    async def open(self, voice: Voice, sampling: Sampling) -> SpeechStream:
        """Open a stream. Raises EngineBusy if `limits.max_streams` streams are open, InvalidInput for a schedule that
        the engine does not have."""
        ...

    def device_memory(self) -> DeviceMemory | None:
        """The accelerator's current memory use; None for an engine on the CPU."""

    async def warm_up(self) -> None:
        """Speak one short utterance, so that the first stream does not pay for first-use costs."""

    async def close(self) -> None:
        """Close all streams and free the device."""
