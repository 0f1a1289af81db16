"""The contract between whoever has text and whoever makes audio of it.

Every engine (the real pipeline, the fake one) fulfils these protocols; the service knows nothing else of
engines. No model library is imported here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from engines.config import Sampling
from engines.health import Health
from engines.model_spec import SAMPLE_RATE_HZ
from engines.voice import Voice

Samples = npt.NDArray[np.float32]  # (n,) mono, 24 kHz, full scale 1.0


@dataclass(frozen=True)
class Limits:
    """What one stream may ask of an engine; published to clients as it stands."""

    max_text_chars_per_segment: int
    max_speech_tokens_per_segment: int
    max_streams: int


@dataclass(frozen=True)
class EngineInfo:
    """Who speaks. `notice` is a sentence for people, e.g. that random weights make noise; empty otherwise.

    `refused_runtimes` are those that were asked for and not fit to serve on this machine, each with the reason.
    """

    model: str
    device: str
    t3_runtime: str
    s3gen_runtime: str
    limits: Limits
    random_weights: bool = False
    notice: str = ""
    sample_rate_hz: int = SAMPLE_RATE_HZ
    refused_runtimes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Segment:
    """Text between two flushes or sentence ends; `index` counts from 0 within its stream."""

    index: int
    text: str


@dataclass(frozen=True)
class SegmentStarted:
    """Work on a segment began; `text_tokens` is its length after normalisation and tokenizing."""

    segment: Segment
    text_tokens: int


@dataclass(frozen=True)
class WindowFigures:
    """How the window behind a chunk came about; seconds of wall time."""

    index: int  # within its segment
    new_speech_tokens: int  # that became the chunk
    made_speech_tokens: int  # of the segment, when the chunk was handed over
    queue_s: float  # waited for the device
    decode_s: float


@dataclass(frozen=True)
class AudioChunk:
    """Samples of one window, final and gapless: they start exactly where the previous chunk ended."""

    segment_index: int
    first_sample: int  # on the stream's timeline, 0 is the first sample of the first segment
    samples: Samples
    window: WindowFigures | None = None  # of engines that decode in windows


@dataclass(frozen=True)
class SegmentStats:
    """What a segment cost and whether a real-time listener would have run dry. Seconds of wall time."""

    speech_tokens: int = 0
    samples: int = 0
    windows: int = 0
    ttfa_s: float = 0.0  # speak() called -> first chunk yielded
    t3_s: float = 0.0
    s3gen_s: float = 0.0
    max_gap_s: float = 0.0  # longest wait between two chunks
    min_buffer_s: float | None = None  # least audio the listener had left when a chunk came; None if only one came
    underruns: int = 0
    underrun_s: float = 0.0
    hit_token_limit: bool = False  # T3 was cut at max_speech_tokens


@dataclass(frozen=True)
class SegmentDone:
    """The last event of a segment; the sum of its chunks' samples equals `stats.samples`."""

    segment: Segment
    stats: SegmentStats = field(default_factory=SegmentStats)


Event = SegmentStarted | AudioChunk | SegmentDone


@dataclass(frozen=True)
class T3Use:
    """What T3's running requests hold, and how their prompts were read since the engine was built."""

    kv_cache_share: float = 0.0  # of the room for keys and values, 0 to 1
    read_positions: int = 0  # prompt positions computed
    cached_positions: int = 0  # prompt positions taken from the prefix cache instead


@dataclass(frozen=True)
class DeviceMemory:
    """An accelerator's memory, of all processes together."""

    used_bytes: int
    total_bytes: int


class Observer:
    """Told of an engine's work as it happens, for metrics and traces; this one does not listen.

    What a window cost is told by its chunk (WindowFigures); here is what no chunk knows.
    Called from the event loop and from the engine's threads, often: whoever overrides a method returns at once and
    never raises. Those marked * are called in the context (contextvars) of the task that speaks the segment.
    """

    def segment_prefilled(self, seconds: float) -> None:
        """* The first speech tokens came so long after the segment was given to T3."""

    def segment_generated(self, seconds: float, speech_tokens: int) -> None:
        """* T3 has finished a segment, so long after it was given to it."""

    def step_ran(self, seconds: float, sequences: int) -> None:
        """One step of T3, for so many segments."""

    def t3_used(self, use: T3Use) -> None:
        """After each step, and whenever a segment was dropped."""

    def batch_ran(self, windows: int) -> None:
        """So many windows were decoded in one call."""

    def stage_ran(self, stage: str, seconds: float) -> None:
        """One stage of S3Gen for a batch: encoder, cfm, vocoder. Where a runtime cannot tell the first two apart, as on
        a GPU, they are one, flow; whole segments at once are one stage, waveform."""

    def window_rejected(self, runtime: str) -> None:
        """What this runtime made of a window was no audio; the reference path decodes it once more."""


NULL_OBSERVER = Observer()


class SpeechStream(Protocol):
    """One listener's stream: segments in, audio out, in order. Owned by one task; not thread-safe."""

    def prepare(self, segment: Segment) -> None:
        """Optional hint that `segment` is the next one to be spoken: its speech tokens may be made ahead."""

    def speak(self, segment: Segment) -> AsyncGenerator[Event, None]:
        """SegmentStarted, then AudioChunks as they are made, then SegmentDone.

        Raises InvalidInput (text empty after normalisation or too long) before the first event, EngineFailure
        at any point. Closing the generator early cancels the segment, and whatever was
        prepared behind it, and frees what they held before returning.
        """
        ...

    async def close(self) -> None:
        """Stop everything and free everything (KV cache, queued windows, slot) before returning. Idempotent."""


class Engine(Protocol):
    """Text and a Voice in, audio out."""

    @property
    def info(self) -> EngineInfo: ...

    @property
    def health(self) -> Health:
        """Unhealthy while new streams would fail: a part of the engine has broken down and is being rebuilt."""

    @property
    def default_voice(self) -> Voice | None:
        """The checkpoint's built-in voice, if it has one."""

    async def make_voice(self, audio: bytes, *, name: str) -> Voice:
        """A Voice from an encoded audio file's bytes (any format, rate, channel count).

        Raises InvalidInput with reason AUDIO_EMPTY, AUDIO_TOO_LARGE (> 32 MiB, or inflating beyond it),
        AUDIO_NOT_DECODABLE, AUDIO_TOO_SHORT (<= 5 s), AUDIO_TOO_LONG (> 120 s) or AUDIO_SILENT.
        """
        ...

    async def open(self, voice: Voice, sampling: Sampling) -> SpeechStream:
        """A stream in this voice. Raises EngineBusy when `limits.max_streams` are open."""
        ...

    def device_memory(self) -> DeviceMemory | None:
        """Now; None where the engine's memory is the host's."""

    async def warm_up(self) -> None:
        """Speak one short utterance to the end, so that the first listener does not pay for first-use costs."""

    async def close(self) -> None:
        """End all streams and free the device."""
