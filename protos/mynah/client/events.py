"""The messages of a server, as typed values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from mynah.client.settings import AudioFormat, Sampling, Schedule, SpeechSettings


@dataclass(frozen=True)
class Limits:
    """The limits of a stream and of an upload."""

    max_pending_text_chars: int
    max_segment_text_chars: int
    max_segment_speech_tokens: int
    max_pending_flushes: int
    max_open_streams: int
    max_upload_bytes: int
    idle_timeout_s: float
    stall_timeout_s: float
    max_segment_text_tokens: int = 0  # 0 from a server older than these two
    split_segment_text_chars: int = 0


@dataclass(frozen=True)
class ModelInfo:
    """A model of the server, and what a stream of it may ask for; the fields are those of ServerInfo."""

    name: str
    t3_runtime: str
    s3gen_runtime: str
    decode: str
    random_weights: bool
    notice: str
    tags: tuple[str, ...]
    word_times: bool
    word_times_notice: str
    languages: tuple[str, ...]
    cfg_weight_default: float | None
    exaggeration_default: float | None
    min_p_default: float | None
    sampling_defaults: Sampling
    continuity: bool
    missing_languages: dict[str, str] = field(default_factory=dict)
    limits: Limits | None = None  # None from an older server


@dataclass(frozen=True)
class ServerInfo:
    """The server's version, models, formats and limits. What is said of one model describes the first."""

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
    tags: tuple[str, ...] = ()  # that the model speaks, e.g. "[laugh]"
    word_times: bool = False  # whether streams can ask for word times and for the guard on words
    word_times_notice: str = ""  # if not: why, as a sentence
    decode: str = ""  # how S3Gen decodes: reference or cached; empty from an older server or without windows
    setting_reason: str = ""  # why the engine runs like that, with what was measured; empty if nothing was to be chosen
    load: float | None = None  # seconds of computing per second of one stream's audio; None if not measured
    normalized_languages: tuple[str, ...] = ()  # in which TextSettings.normalize reads text
    ssml_elements: tuple[str, ...] = ()  # that are obeyed with markup "ssml"
    languages: tuple[str, ...] = ()  # that a stream may name, as ISO 639-1 codes; empty from an older server
    cfg_weight_default: float | None = None  # None: the model has no guidance
    exaggeration_default: float | None = None  # None: the model has none
    min_p_default: float | None = None  # None: the model has none
    sampling_defaults: Sampling = field(default_factory=Sampling)  # the model's; without a seed
    continuity: bool = False  # whether streams can ask that a segment goes on from the speech of the one before
    models: tuple[ModelInfo, ...] = ()  # all of them; empty from an older server
    # those of `languages` that the server cannot speak, and the package or file that it lacks for each
    missing_languages: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StreamOpened:
    """The stream is open. `settings` has all defaults filled in, including the seed."""

    stream_id: str
    settings: SpeechSettings
    limits: Limits
    model: str
    notice: str
    tags: tuple[str, ...] = ()  # that the model speaks, such as "[laugh]"
    schedule: Schedule | None = None  # repeats every byte together with the seed; None: windows follow the load
    dictionary_entries: int = 0  # respellings that hold: of the request, of the voice and of the server together


EndReason = Literal["unspecified", "spoken", "skipped", "token_limit", "runaway"]
SkipReason = Literal["unspecified", "nothing_to_speak", "script_unsupported"]


@dataclass(frozen=True)
class WindowFigures:
    """The work behind a chunk, as measured by the server."""

    window_index: int  # within the segment
    new_speech_tokens: int  # in this chunk
    made_speech_tokens: int  # of the segment so far
    queue_s: float  # in the queue for the device
    decode_s: float


@dataclass(frozen=True)
class AudioChunk:
    """A piece of final, gapless audio. `offset_samples` is its position on the stream's timeline."""

    sequence_number: int
    segment_index: int
    offset_samples: int
    samples: int
    data: bytes
    window: WindowFigures | None = None


@dataclass(frozen=True)
class SpokenSpan:
    """Where a segment's text and its spoken form differ: spoken_text[spoken_start:spoken_end] is said for
    text[written_start:written_end]. Either may be empty."""

    spoken_start: int
    spoken_end: int
    written_start: int
    written_end: int


@dataclass(frozen=True)
class WordTime:
    """A word as written, its chars in the segment's text, and its samples on the timeline; `spoken_text` differs from
    `text` if the text was normalised."""

    text: str
    start_char: int
    end_char: int
    start_samples: int
    end_samples: int
    spoken_text: str


@dataclass(frozen=True)
class Words:
    """Words that end in the chunks received so far and were not reported before, in order."""

    segment_index: int
    words: tuple[WordTime, ...]


WordFault = Literal["unspecified", "late_end", "repeated", "invented_tail", "early_stop"]
WordGuardAction = Literal["unspecified", "retried", "stopped", "reported"]


@dataclass(frozen=True)
class WordGuard:
    """What the guard on words found in a segment, and what the server did. `retries` are draws that were dropped."""

    fault: WordFault
    action: WordGuardAction
    retries: int
    spoken_chars: int  # of the segment's text, before which its words were spoken


@dataclass(frozen=True)
class SegmentStarted:
    """A segment begins. Its audio follows.

    `spoken_text` is what is said for `text`; outside of `spoken_spans` both have the same characters. `pause_s` is
    above 0 for a pause, which has no text.
    """

    segment_index: int
    offset_samples: int
    text: str
    text_tokens: int
    consumed_text_chars: int
    speed: float = 1.0  # of its speech
    spoken_text: str = ""  # empty from a server older than this field
    spoken_spans: tuple[SpokenSpan, ...] = ()
    pause_s: float = 0.0


@dataclass(frozen=True)
class SegmentDone:
    """A segment is complete; `samples` is the sum of its chunks. Times are measured by the server.

    `end_reason` is "unspecified" from a server older than the field, `skip_reason` if the segment was not skipped.
    """

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
    end_reason: EndReason = "unspecified"
    skip_reason: SkipReason = "unspecified"
    pause: bool = False  # a pause rather than text
    word_guard: WordGuard | None = None  # None: it was off, or it found nothing


@dataclass(frozen=True)
class MarkReached:
    """All text before a mark of the SSML has been spoken: the mark's place on the timeline."""

    name: str
    offset_samples: int


@dataclass(frozen=True)
class Flushed:
    """All text before the flush has been spoken and sent."""

    flush_id: int
    offset_samples: int


@dataclass(frozen=True)
class Cancelled:
    """All text before the cancel was dropped. Samples are counted from the opening of the stream."""

    made_samples: int
    delivered_samples: int
    segment_index: int | None
    dropped_flush_ids: tuple[int, ...]
    consumed_text_chars: int
    words: tuple[WordTime, ...] = ()  # of the segment, those of which audio was sent; needs word_times


Event = AudioChunk | Words | SegmentStarted | SegmentDone | MarkReached | Flushed | Cancelled


@dataclass(frozen=True)
class VoiceWarning:
    """Something about a recording that makes a voice worse: `reason` for programs, `message` for people."""

    reason: str
    message: str


@dataclass(frozen=True)
class Voice:
    """A voice of the server. What is None was not measured, as for built-in voices.

    used_from_s, used_s   the part of the recording that the voice was made from
    speech_share          of that part, 0 to 1
    speech_to_noise_db    how far the noise lies below the speech, at most 60
    kept                  whether the voice is still there after a restart of the server
    similarity            how near speech made with the voice comes to the recording: the cosine of speaker embeddings
    similarity_skipped    why there is no similarity, as a sentence; else empty
    recording_kept        whether the server keeps the recording, from which a server of another model makes it again
    """

    voice_id: str
    name: str
    created: datetime | None  # UTC; None for built-in voices
    built_in: bool
    reference_s: float  # seconds of speech that the voice continues, at most 15
    used_from_s: float | None = None
    used_s: float | None = None
    speech_share: float | None = None
    speech_to_noise_db: float | None = None
    kept: bool = False
    warnings: tuple[VoiceWarning, ...] = ()
    similarity: float | None = None
    similarity_skipped: str = ""
    recording_kept: bool = False
