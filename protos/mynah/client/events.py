"""What a server says, as typed values. Knows nothing of protobuf or connections."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mynah.client.settings import AudioFormat, SpeechSettings


@dataclass(frozen=True)
class Limits:
    """What one stream, or one upload, may ask for."""

    max_pending_text_chars: int
    max_segment_text_chars: int
    max_segment_speech_tokens: int
    max_pending_flushes: int
    max_open_streams: int
    max_upload_bytes: int
    idle_timeout_s: float
    stall_timeout_s: float


@dataclass(frozen=True)
class ServerInfo:
    """Who speaks."""

    version: str
    model: str
    device: str
    t3_runtime: str
    s3gen_runtime: str
    random_weights: bool
    notice: str
    native_sample_rate_hz: int
    sample_rates_hz: tuple[int, ...]
    audio_formats: tuple[AudioFormat, ...]
    limits: Limits
    open_streams: int


@dataclass(frozen=True)
class StreamOpened:
    """The stream as the server understood it; `settings` has every default filled in, the seed included."""

    stream_id: str
    settings: SpeechSettings
    limits: Limits
    model: str
    notice: str


@dataclass(frozen=True)
class WindowFigures:
    """What it took to make a chunk, as the server saw it; times in seconds."""

    window_index: int  # within the segment
    new_speech_tokens: int  # that became the chunk
    made_speech_tokens: int  # of the segment, when the chunk was ready
    queue_s: float  # of waiting for the device
    decode_s: float


@dataclass(frozen=True)
class AudioChunk:
    """Final, gapless audio. `offset_samples` is where it begins on the stream's timeline, at the stream's rate."""

    sequence_number: int
    segment_index: int
    offset_samples: int
    samples: int
    data: bytes
    window: WindowFigures | None = None


@dataclass(frozen=True)
class SegmentStarted:
    """Work on a segment began."""

    segment_index: int
    offset_samples: int
    text: str
    text_tokens: int
    consumed_text_chars: int


@dataclass(frozen=True)
class SegmentDone:
    """A segment is complete; `samples` is the sum of its chunks. Times in seconds, as the server saw them."""

    segment_index: int
    offset_samples: int
    samples: int
    skipped: bool
    hit_token_limit: bool
    speech_tokens: int
    windows: int
    ttfa_s: float
    t3_s: float
    s3gen_s: float
    max_gap_s: float
    min_buffer_s: float | None
    underruns: int
    underrun_s: float
    consumed_text_chars: int


@dataclass(frozen=True)
class Flushed:
    """All text before the flush has been spoken and received."""

    flush_id: int
    offset_samples: int


@dataclass(frozen=True)
class Cancelled:
    """All text before the cancel was dropped. Samples count from the opening of the stream."""

    made_samples: int
    delivered_samples: int
    segment_index: int | None
    dropped_flush_ids: tuple[int, ...]
    consumed_text_chars: int


Event = AudioChunk | SegmentStarted | SegmentDone | Flushed | Cancelled


@dataclass(frozen=True)
class Voice:
    """A voice the server can speak with."""

    voice_id: str
    name: str
    created: datetime | None  # UTC; None for the built-in voice
    built_in: bool
    reference_s: float
