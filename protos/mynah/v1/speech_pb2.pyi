from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AudioFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AUDIO_FORMAT_UNSPECIFIED: _ClassVar[AudioFormat]
    AUDIO_FORMAT_PCM_S16LE: _ClassVar[AudioFormat]
    AUDIO_FORMAT_PCM_F32LE: _ClassVar[AudioFormat]
    AUDIO_FORMAT_WAV: _ClassVar[AudioFormat]
    AUDIO_FORMAT_OGG_OPUS: _ClassVar[AudioFormat]
    AUDIO_FORMAT_WEBM_OPUS: _ClassVar[AudioFormat]
    AUDIO_FORMAT_MP3: _ClassVar[AudioFormat]
    AUDIO_FORMAT_FLAC: _ClassVar[AudioFormat]
    AUDIO_FORMAT_AAC: _ClassVar[AudioFormat]
    AUDIO_FORMAT_MULAW: _ClassVar[AudioFormat]
    AUDIO_FORMAT_ALAW: _ClassVar[AudioFormat]

class FirstSegment(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FIRST_SEGMENT_UNSPECIFIED: _ClassVar[FirstSegment]
    FIRST_SEGMENT_SENTENCE: _ClassVar[FirstSegment]
    FIRST_SEGMENT_CLAUSE: _ClassVar[FirstSegment]
    FIRST_SEGMENT_AUTO: _ClassVar[FirstSegment]

class Emoji(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EMOJI_UNSPECIFIED: _ClassVar[Emoji]
    EMOJI_DROP: _ClassVar[Emoji]
    EMOJI_NAME: _ClassVar[Emoji]

class Markup(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MARKUP_UNSPECIFIED: _ClassVar[Markup]
    MARKUP_REFUSE: _ClassVar[Markup]
    MARKUP_STRIP: _ClassVar[Markup]
    MARKUP_LITERAL: _ClassVar[Markup]
    MARKUP_SSML: _ClassVar[Markup]
    MARKUP_SSML_LENIENT: _ClassVar[Markup]

class UnspeakableText(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNSPEAKABLE_TEXT_UNSPECIFIED: _ClassVar[UnspeakableText]
    UNSPEAKABLE_TEXT_SKIP: _ClassVar[UnspeakableText]
    UNSPEAKABLE_TEXT_REFUSE: _ClassVar[UnspeakableText]

class WordFault(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WORD_FAULT_UNSPECIFIED: _ClassVar[WordFault]
    WORD_FAULT_LATE_END: _ClassVar[WordFault]
    WORD_FAULT_REPEATED: _ClassVar[WordFault]
    WORD_FAULT_INVENTED_TAIL: _ClassVar[WordFault]
    WORD_FAULT_EARLY_STOP: _ClassVar[WordFault]

class WordGuardAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WORD_GUARD_ACTION_UNSPECIFIED: _ClassVar[WordGuardAction]
    WORD_GUARD_ACTION_RETRIED: _ClassVar[WordGuardAction]
    WORD_GUARD_ACTION_STOPPED: _ClassVar[WordGuardAction]
    WORD_GUARD_ACTION_REPORTED: _ClassVar[WordGuardAction]

class EndReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    END_REASON_UNSPECIFIED: _ClassVar[EndReason]
    END_REASON_SPOKEN: _ClassVar[EndReason]
    END_REASON_SKIPPED: _ClassVar[EndReason]
    END_REASON_TOKEN_LIMIT: _ClassVar[EndReason]
    END_REASON_RUNAWAY: _ClassVar[EndReason]

class SkipReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SKIP_REASON_UNSPECIFIED: _ClassVar[SkipReason]
    SKIP_REASON_NOTHING_TO_SPEAK: _ClassVar[SkipReason]
    SKIP_REASON_SCRIPT_UNSUPPORTED: _ClassVar[SkipReason]
AUDIO_FORMAT_UNSPECIFIED: AudioFormat
AUDIO_FORMAT_PCM_S16LE: AudioFormat
AUDIO_FORMAT_PCM_F32LE: AudioFormat
AUDIO_FORMAT_WAV: AudioFormat
AUDIO_FORMAT_OGG_OPUS: AudioFormat
AUDIO_FORMAT_WEBM_OPUS: AudioFormat
AUDIO_FORMAT_MP3: AudioFormat
AUDIO_FORMAT_FLAC: AudioFormat
AUDIO_FORMAT_AAC: AudioFormat
AUDIO_FORMAT_MULAW: AudioFormat
AUDIO_FORMAT_ALAW: AudioFormat
FIRST_SEGMENT_UNSPECIFIED: FirstSegment
FIRST_SEGMENT_SENTENCE: FirstSegment
FIRST_SEGMENT_CLAUSE: FirstSegment
FIRST_SEGMENT_AUTO: FirstSegment
EMOJI_UNSPECIFIED: Emoji
EMOJI_DROP: Emoji
EMOJI_NAME: Emoji
MARKUP_UNSPECIFIED: Markup
MARKUP_REFUSE: Markup
MARKUP_STRIP: Markup
MARKUP_LITERAL: Markup
MARKUP_SSML: Markup
MARKUP_SSML_LENIENT: Markup
UNSPEAKABLE_TEXT_UNSPECIFIED: UnspeakableText
UNSPEAKABLE_TEXT_SKIP: UnspeakableText
UNSPEAKABLE_TEXT_REFUSE: UnspeakableText
WORD_FAULT_UNSPECIFIED: WordFault
WORD_FAULT_LATE_END: WordFault
WORD_FAULT_REPEATED: WordFault
WORD_FAULT_INVENTED_TAIL: WordFault
WORD_FAULT_EARLY_STOP: WordFault
WORD_GUARD_ACTION_UNSPECIFIED: WordGuardAction
WORD_GUARD_ACTION_RETRIED: WordGuardAction
WORD_GUARD_ACTION_STOPPED: WordGuardAction
WORD_GUARD_ACTION_REPORTED: WordGuardAction
END_REASON_UNSPECIFIED: EndReason
END_REASON_SPOKEN: EndReason
END_REASON_SKIPPED: EndReason
END_REASON_TOKEN_LIMIT: EndReason
END_REASON_RUNAWAY: EndReason
SKIP_REASON_UNSPECIFIED: SkipReason
SKIP_REASON_NOTHING_TO_SPEAK: SkipReason
SKIP_REASON_SCRIPT_UNSUPPORTED: SkipReason

class SpeechSettings(_message.Message):
    __slots__ = ("voice_id", "audio_format", "sample_rate_hz", "sampling", "text", "speed", "language_code", "cfg_weight", "exaggeration", "first_segment", "word_times", "word_guard", "schedule", "continuity", "model")
    VOICE_ID_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FORMAT_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_HZ_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SPEED_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    CFG_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    EXAGGERATION_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEGMENT_FIELD_NUMBER: _ClassVar[int]
    WORD_TIMES_FIELD_NUMBER: _ClassVar[int]
    WORD_GUARD_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    CONTINUITY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    voice_id: str
    audio_format: AudioFormat
    sample_rate_hz: int
    sampling: Sampling
    text: TextSettings
    speed: float
    language_code: str
    cfg_weight: float
    exaggeration: float
    first_segment: FirstSegment
    word_times: bool
    word_guard: bool
    schedule: str
    continuity: bool
    model: str
    def __init__(self, voice_id: _Optional[str] = ..., audio_format: _Optional[_Union[AudioFormat, str]] = ..., sample_rate_hz: _Optional[int] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., text: _Optional[_Union[TextSettings, _Mapping]] = ..., speed: _Optional[float] = ..., language_code: _Optional[str] = ..., cfg_weight: _Optional[float] = ..., exaggeration: _Optional[float] = ..., first_segment: _Optional[_Union[FirstSegment, str]] = ..., word_times: bool = ..., word_guard: bool = ..., schedule: _Optional[str] = ..., continuity: bool = ..., model: _Optional[str] = ...) -> None: ...

class TextSettings(_message.Message):
    __slots__ = ("markup", "unspeakable_text", "drop_thinking", "normalize", "emoji", "paragraph_pause_s", "dictionary")
    MARKUP_FIELD_NUMBER: _ClassVar[int]
    UNSPEAKABLE_TEXT_FIELD_NUMBER: _ClassVar[int]
    DROP_THINKING_FIELD_NUMBER: _ClassVar[int]
    NORMALIZE_FIELD_NUMBER: _ClassVar[int]
    EMOJI_FIELD_NUMBER: _ClassVar[int]
    PARAGRAPH_PAUSE_S_FIELD_NUMBER: _ClassVar[int]
    DICTIONARY_FIELD_NUMBER: _ClassVar[int]
    markup: Markup
    unspeakable_text: UnspeakableText
    drop_thinking: bool
    normalize: bool
    emoji: Emoji
    paragraph_pause_s: float
    dictionary: _containers.RepeatedCompositeFieldContainer[DictionaryEntry]
    def __init__(self, markup: _Optional[_Union[Markup, str]] = ..., unspeakable_text: _Optional[_Union[UnspeakableText, str]] = ..., drop_thinking: bool = ..., normalize: bool = ..., emoji: _Optional[_Union[Emoji, str]] = ..., paragraph_pause_s: _Optional[float] = ..., dictionary: _Optional[_Iterable[_Union[DictionaryEntry, _Mapping]]] = ...) -> None: ...

class DictionaryEntry(_message.Message):
    __slots__ = ("word", "respelling", "case_sensitive")
    WORD_FIELD_NUMBER: _ClassVar[int]
    RESPELLING_FIELD_NUMBER: _ClassVar[int]
    CASE_SENSITIVE_FIELD_NUMBER: _ClassVar[int]
    word: str
    respelling: str
    case_sensitive: bool
    def __init__(self, word: _Optional[str] = ..., respelling: _Optional[str] = ..., case_sensitive: bool = ...) -> None: ...

class Sampling(_message.Message):
    __slots__ = ("temperature", "top_k", "top_p", "repetition_penalty", "seed", "max_speech_token_count", "min_p")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    REPETITION_PENALTY_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    MAX_SPEECH_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    MIN_P_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float
    seed: int
    max_speech_token_count: int
    min_p: float
    def __init__(self, temperature: _Optional[float] = ..., top_k: _Optional[int] = ..., top_p: _Optional[float] = ..., repetition_penalty: _Optional[float] = ..., seed: _Optional[int] = ..., max_speech_token_count: _Optional[int] = ..., min_p: _Optional[float] = ...) -> None: ...

class StreamSpeechRequest(_message.Message):
    __slots__ = ("open", "text", "flush", "cancel", "set_speed")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FLUSH_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    SET_SPEED_FIELD_NUMBER: _ClassVar[int]
    open: OpenStream
    text: TextFragment
    flush: Flush
    cancel: Cancel
    set_speed: SetSpeed
    def __init__(self, open: _Optional[_Union[OpenStream, _Mapping]] = ..., text: _Optional[_Union[TextFragment, _Mapping]] = ..., flush: _Optional[_Union[Flush, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., set_speed: _Optional[_Union[SetSpeed, _Mapping]] = ...) -> None: ...

class OpenStream(_message.Message):
    __slots__ = ("settings",)
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    settings: SpeechSettings
    def __init__(self, settings: _Optional[_Union[SpeechSettings, _Mapping]] = ...) -> None: ...

class TextFragment(_message.Message):
    __slots__ = ("content",)
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    content: str
    def __init__(self, content: _Optional[str] = ...) -> None: ...

class Flush(_message.Message):
    __slots__ = ("flush_id",)
    FLUSH_ID_FIELD_NUMBER: _ClassVar[int]
    flush_id: int
    def __init__(self, flush_id: _Optional[int] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SetSpeed(_message.Message):
    __slots__ = ("speed",)
    SPEED_FIELD_NUMBER: _ClassVar[int]
    speed: float
    def __init__(self, speed: _Optional[float] = ...) -> None: ...

class StreamSpeechResponse(_message.Message):
    __slots__ = ("opened", "audio", "segment_started", "segment_done", "flushed", "cancelled", "words", "mark_reached")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_STARTED_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_DONE_FIELD_NUMBER: _ClassVar[int]
    FLUSHED_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    MARK_REACHED_FIELD_NUMBER: _ClassVar[int]
    opened: StreamOpened
    audio: AudioChunk
    segment_started: SegmentStarted
    segment_done: SegmentDone
    flushed: Flushed
    cancelled: Cancelled
    words: Words
    mark_reached: MarkReached
    def __init__(self, opened: _Optional[_Union[StreamOpened, _Mapping]] = ..., audio: _Optional[_Union[AudioChunk, _Mapping]] = ..., segment_started: _Optional[_Union[SegmentStarted, _Mapping]] = ..., segment_done: _Optional[_Union[SegmentDone, _Mapping]] = ..., flushed: _Optional[_Union[Flushed, _Mapping]] = ..., cancelled: _Optional[_Union[Cancelled, _Mapping]] = ..., words: _Optional[_Union[Words, _Mapping]] = ..., mark_reached: _Optional[_Union[MarkReached, _Mapping]] = ...) -> None: ...

class StreamOpened(_message.Message):
    __slots__ = ("stream_id", "settings", "limits", "model", "notice", "tags", "schedule", "dictionary_entry_count")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    DICTIONARY_ENTRY_COUNT_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    settings: SpeechSettings
    limits: Limits
    model: str
    notice: str
    tags: _containers.RepeatedScalarFieldContainer[str]
    schedule: str
    dictionary_entry_count: int
    def __init__(self, stream_id: _Optional[str] = ..., settings: _Optional[_Union[SpeechSettings, _Mapping]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., model: _Optional[str] = ..., notice: _Optional[str] = ..., tags: _Optional[_Iterable[str]] = ..., schedule: _Optional[str] = ..., dictionary_entry_count: _Optional[int] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_pending_text_char_count", "max_segment_text_char_count", "max_segment_speech_token_count", "max_pending_flush_count", "max_open_stream_count", "max_upload_byte_count", "idle_timeout_s", "stall_timeout_s", "max_segment_text_token_count", "split_segment_text_char_count")
    MAX_PENDING_TEXT_CHAR_COUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_SEGMENT_TEXT_CHAR_COUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_SEGMENT_SPEECH_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_PENDING_FLUSH_COUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_OPEN_STREAM_COUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_UPLOAD_BYTE_COUNT_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    STALL_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    MAX_SEGMENT_TEXT_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    SPLIT_SEGMENT_TEXT_CHAR_COUNT_FIELD_NUMBER: _ClassVar[int]
    max_pending_text_char_count: int
    max_segment_text_char_count: int
    max_segment_speech_token_count: int
    max_pending_flush_count: int
    max_open_stream_count: int
    max_upload_byte_count: int
    idle_timeout_s: float
    stall_timeout_s: float
    max_segment_text_token_count: int
    split_segment_text_char_count: int
    def __init__(self, max_pending_text_char_count: _Optional[int] = ..., max_segment_text_char_count: _Optional[int] = ..., max_segment_speech_token_count: _Optional[int] = ..., max_pending_flush_count: _Optional[int] = ..., max_open_stream_count: _Optional[int] = ..., max_upload_byte_count: _Optional[int] = ..., idle_timeout_s: _Optional[float] = ..., stall_timeout_s: _Optional[float] = ..., max_segment_text_token_count: _Optional[int] = ..., split_segment_text_char_count: _Optional[int] = ...) -> None: ...

class AudioChunk(_message.Message):
    __slots__ = ("sequence_number", "segment_index", "offset_samples", "sample_count", "data", "window")
    SEQUENCE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_INDEX_FIELD_NUMBER: _ClassVar[int]
    OFFSET_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    sequence_number: int
    segment_index: int
    offset_samples: int
    sample_count: int
    data: bytes
    window: WindowFigures
    def __init__(self, sequence_number: _Optional[int] = ..., segment_index: _Optional[int] = ..., offset_samples: _Optional[int] = ..., sample_count: _Optional[int] = ..., data: _Optional[bytes] = ..., window: _Optional[_Union[WindowFigures, _Mapping]] = ...) -> None: ...

class WindowFigures(_message.Message):
    __slots__ = ("window_index", "new_speech_token_count", "made_speech_token_count", "queue_s", "decode_s")
    WINDOW_INDEX_FIELD_NUMBER: _ClassVar[int]
    NEW_SPEECH_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    MADE_SPEECH_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    QUEUE_S_FIELD_NUMBER: _ClassVar[int]
    DECODE_S_FIELD_NUMBER: _ClassVar[int]
    window_index: int
    new_speech_token_count: int
    made_speech_token_count: int
    queue_s: float
    decode_s: float
    def __init__(self, window_index: _Optional[int] = ..., new_speech_token_count: _Optional[int] = ..., made_speech_token_count: _Optional[int] = ..., queue_s: _Optional[float] = ..., decode_s: _Optional[float] = ...) -> None: ...

class Words(_message.Message):
    __slots__ = ("segment_index", "words")
    SEGMENT_INDEX_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    segment_index: int
    words: _containers.RepeatedCompositeFieldContainer[WordTime]
    def __init__(self, segment_index: _Optional[int] = ..., words: _Optional[_Iterable[_Union[WordTime, _Mapping]]] = ...) -> None: ...

class WordTime(_message.Message):
    __slots__ = ("text", "start_char_index", "end_char_index", "start_samples", "end_samples", "spoken_text")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    START_CHAR_INDEX_FIELD_NUMBER: _ClassVar[int]
    END_CHAR_INDEX_FIELD_NUMBER: _ClassVar[int]
    START_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    END_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    SPOKEN_TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    start_char_index: int
    end_char_index: int
    start_samples: int
    end_samples: int
    spoken_text: str
    def __init__(self, text: _Optional[str] = ..., start_char_index: _Optional[int] = ..., end_char_index: _Optional[int] = ..., start_samples: _Optional[int] = ..., end_samples: _Optional[int] = ..., spoken_text: _Optional[str] = ...) -> None: ...

class SegmentStarted(_message.Message):
    __slots__ = ("segment_index", "offset_samples", "text", "text_token_count", "consumed_text_char_count", "spoken_text", "spoken_spans", "pause_s", "speed")
    SEGMENT_INDEX_FIELD_NUMBER: _ClassVar[int]
    OFFSET_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TEXT_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    CONSUMED_TEXT_CHAR_COUNT_FIELD_NUMBER: _ClassVar[int]
    SPOKEN_TEXT_FIELD_NUMBER: _ClassVar[int]
    SPOKEN_SPANS_FIELD_NUMBER: _ClassVar[int]
    PAUSE_S_FIELD_NUMBER: _ClassVar[int]
    SPEED_FIELD_NUMBER: _ClassVar[int]
    segment_index: int
    offset_samples: int
    text: str
    text_token_count: int
    consumed_text_char_count: int
    spoken_text: str
    spoken_spans: _containers.RepeatedCompositeFieldContainer[SpokenSpan]
    pause_s: float
    speed: float
    def __init__(self, segment_index: _Optional[int] = ..., offset_samples: _Optional[int] = ..., text: _Optional[str] = ..., text_token_count: _Optional[int] = ..., consumed_text_char_count: _Optional[int] = ..., spoken_text: _Optional[str] = ..., spoken_spans: _Optional[_Iterable[_Union[SpokenSpan, _Mapping]]] = ..., pause_s: _Optional[float] = ..., speed: _Optional[float] = ...) -> None: ...

class SpokenSpan(_message.Message):
    __slots__ = ("spoken_start_index", "spoken_end_index", "written_start_index", "written_end_index")
    SPOKEN_START_INDEX_FIELD_NUMBER: _ClassVar[int]
    SPOKEN_END_INDEX_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_START_INDEX_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_END_INDEX_FIELD_NUMBER: _ClassVar[int]
    spoken_start_index: int
    spoken_end_index: int
    written_start_index: int
    written_end_index: int
    def __init__(self, spoken_start_index: _Optional[int] = ..., spoken_end_index: _Optional[int] = ..., written_start_index: _Optional[int] = ..., written_end_index: _Optional[int] = ...) -> None: ...

class MarkReached(_message.Message):
    __slots__ = ("name", "offset_samples")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OFFSET_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    name: str
    offset_samples: int
    def __init__(self, name: _Optional[str] = ..., offset_samples: _Optional[int] = ...) -> None: ...

class SegmentDone(_message.Message):
    __slots__ = ("segment_index", "offset_samples", "sample_count", "skipped", "hit_token_limit", "speech_token_count", "window_count", "ttfa_s", "t3_s", "s3gen_s", "max_gap_s", "underrun_count", "underrun_s", "consumed_text_char_count", "min_buffer_s", "end_reason", "skip_reason", "word_guard", "pause")
    SEGMENT_INDEX_FIELD_NUMBER: _ClassVar[int]
    OFFSET_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    HIT_TOKEN_LIMIT_FIELD_NUMBER: _ClassVar[int]
    SPEECH_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    WINDOW_COUNT_FIELD_NUMBER: _ClassVar[int]
    TTFA_S_FIELD_NUMBER: _ClassVar[int]
    T3_S_FIELD_NUMBER: _ClassVar[int]
    S3GEN_S_FIELD_NUMBER: _ClassVar[int]
    MAX_GAP_S_FIELD_NUMBER: _ClassVar[int]
    UNDERRUN_COUNT_FIELD_NUMBER: _ClassVar[int]
    UNDERRUN_S_FIELD_NUMBER: _ClassVar[int]
    CONSUMED_TEXT_CHAR_COUNT_FIELD_NUMBER: _ClassVar[int]
    MIN_BUFFER_S_FIELD_NUMBER: _ClassVar[int]
    END_REASON_FIELD_NUMBER: _ClassVar[int]
    SKIP_REASON_FIELD_NUMBER: _ClassVar[int]
    WORD_GUARD_FIELD_NUMBER: _ClassVar[int]
    PAUSE_FIELD_NUMBER: _ClassVar[int]
    segment_index: int
    offset_samples: int
    sample_count: int
    skipped: bool
    hit_token_limit: bool
    speech_token_count: int
    window_count: int
    ttfa_s: float
    t3_s: float
    s3gen_s: float
    max_gap_s: float
    underrun_count: int
    underrun_s: float
    consumed_text_char_count: int
    min_buffer_s: float
    end_reason: EndReason
    skip_reason: SkipReason
    word_guard: WordGuard
    pause: bool
    def __init__(self, segment_index: _Optional[int] = ..., offset_samples: _Optional[int] = ..., sample_count: _Optional[int] = ..., skipped: bool = ..., hit_token_limit: bool = ..., speech_token_count: _Optional[int] = ..., window_count: _Optional[int] = ..., ttfa_s: _Optional[float] = ..., t3_s: _Optional[float] = ..., s3gen_s: _Optional[float] = ..., max_gap_s: _Optional[float] = ..., underrun_count: _Optional[int] = ..., underrun_s: _Optional[float] = ..., consumed_text_char_count: _Optional[int] = ..., min_buffer_s: _Optional[float] = ..., end_reason: _Optional[_Union[EndReason, str]] = ..., skip_reason: _Optional[_Union[SkipReason, str]] = ..., word_guard: _Optional[_Union[WordGuard, _Mapping]] = ..., pause: bool = ...) -> None: ...

class WordGuard(_message.Message):
    __slots__ = ("fault", "action", "retry_count", "spoken_char_count")
    FAULT_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    RETRY_COUNT_FIELD_NUMBER: _ClassVar[int]
    SPOKEN_CHAR_COUNT_FIELD_NUMBER: _ClassVar[int]
    fault: WordFault
    action: WordGuardAction
    retry_count: int
    spoken_char_count: int
    def __init__(self, fault: _Optional[_Union[WordFault, str]] = ..., action: _Optional[_Union[WordGuardAction, str]] = ..., retry_count: _Optional[int] = ..., spoken_char_count: _Optional[int] = ...) -> None: ...

class Flushed(_message.Message):
    __slots__ = ("flush_id", "offset_samples")
    FLUSH_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    flush_id: int
    offset_samples: int
    def __init__(self, flush_id: _Optional[int] = ..., offset_samples: _Optional[int] = ...) -> None: ...

class Cancelled(_message.Message):
    __slots__ = ("made_sample_count", "delivered_sample_count", "segment_index", "dropped_flush_ids", "consumed_text_char_count", "words")
    MADE_SAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    DELIVERED_SAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_INDEX_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FLUSH_IDS_FIELD_NUMBER: _ClassVar[int]
    CONSUMED_TEXT_CHAR_COUNT_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    made_sample_count: int
    delivered_sample_count: int
    segment_index: int
    dropped_flush_ids: _containers.RepeatedScalarFieldContainer[int]
    consumed_text_char_count: int
    words: _containers.RepeatedCompositeFieldContainer[WordTime]
    def __init__(self, made_sample_count: _Optional[int] = ..., delivered_sample_count: _Optional[int] = ..., segment_index: _Optional[int] = ..., dropped_flush_ids: _Optional[_Iterable[int]] = ..., consumed_text_char_count: _Optional[int] = ..., words: _Optional[_Iterable[_Union[WordTime, _Mapping]]] = ...) -> None: ...

class SynthesizeRequest(_message.Message):
    __slots__ = ("settings", "text")
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    settings: SpeechSettings
    text: str
    def __init__(self, settings: _Optional[_Union[SpeechSettings, _Mapping]] = ..., text: _Optional[str] = ...) -> None: ...

class SynthesizeResponse(_message.Message):
    __slots__ = ("opened", "audio", "segment_started", "segment_done", "words", "mark_reached")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_STARTED_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_DONE_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    MARK_REACHED_FIELD_NUMBER: _ClassVar[int]
    opened: StreamOpened
    audio: AudioChunk
    segment_started: SegmentStarted
    segment_done: SegmentDone
    words: Words
    mark_reached: MarkReached
    def __init__(self, opened: _Optional[_Union[StreamOpened, _Mapping]] = ..., audio: _Optional[_Union[AudioChunk, _Mapping]] = ..., segment_started: _Optional[_Union[SegmentStarted, _Mapping]] = ..., segment_done: _Optional[_Union[SegmentDone, _Mapping]] = ..., words: _Optional[_Union[Words, _Mapping]] = ..., mark_reached: _Optional[_Union[MarkReached, _Mapping]] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ModelInfo(_message.Message):
    __slots__ = ("name", "t3_runtime", "s3gen_runtime", "decode", "random_weights", "notice", "tags", "language_codes", "cfg_weight_default", "exaggeration_default", "min_p_default", "sampling_defaults", "word_times", "word_times_notice", "continuity", "missing_languages", "limits")
    NAME_FIELD_NUMBER: _ClassVar[int]
    T3_RUNTIME_FIELD_NUMBER: _ClassVar[int]
    S3GEN_RUNTIME_FIELD_NUMBER: _ClassVar[int]
    DECODE_FIELD_NUMBER: _ClassVar[int]
    RANDOM_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_CODES_FIELD_NUMBER: _ClassVar[int]
    CFG_WEIGHT_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    EXAGGERATION_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    MIN_P_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_DEFAULTS_FIELD_NUMBER: _ClassVar[int]
    WORD_TIMES_FIELD_NUMBER: _ClassVar[int]
    WORD_TIMES_NOTICE_FIELD_NUMBER: _ClassVar[int]
    CONTINUITY_FIELD_NUMBER: _ClassVar[int]
    MISSING_LANGUAGES_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    name: str
    t3_runtime: str
    s3gen_runtime: str
    decode: str
    random_weights: bool
    notice: str
    tags: _containers.RepeatedScalarFieldContainer[str]
    language_codes: _containers.RepeatedScalarFieldContainer[str]
    cfg_weight_default: float
    exaggeration_default: float
    min_p_default: float
    sampling_defaults: Sampling
    word_times: bool
    word_times_notice: str
    continuity: bool
    missing_languages: _containers.RepeatedCompositeFieldContainer[MissingLanguage]
    limits: Limits
    def __init__(self, name: _Optional[str] = ..., t3_runtime: _Optional[str] = ..., s3gen_runtime: _Optional[str] = ..., decode: _Optional[str] = ..., random_weights: bool = ..., notice: _Optional[str] = ..., tags: _Optional[_Iterable[str]] = ..., language_codes: _Optional[_Iterable[str]] = ..., cfg_weight_default: _Optional[float] = ..., exaggeration_default: _Optional[float] = ..., min_p_default: _Optional[float] = ..., sampling_defaults: _Optional[_Union[Sampling, _Mapping]] = ..., word_times: bool = ..., word_times_notice: _Optional[str] = ..., continuity: bool = ..., missing_languages: _Optional[_Iterable[_Union[MissingLanguage, _Mapping]]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...

class MissingLanguage(_message.Message):
    __slots__ = ("language_code", "missing")
    LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    language_code: str
    missing: str
    def __init__(self, language_code: _Optional[str] = ..., missing: _Optional[str] = ...) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("version", "model", "device", "t3_runtime", "s3gen_runtime", "random_weights", "notice", "native_sample_rate_hz", "sample_rates_hz", "audio_formats", "limits", "open_stream_count", "tags", "word_times", "word_times_notice", "decode", "setting_reason", "load", "normalized_languages", "ssml_elements", "language_codes", "cfg_weight_default", "exaggeration_default", "min_p_default", "sampling_defaults", "continuity", "models", "missing_languages")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    T3_RUNTIME_FIELD_NUMBER: _ClassVar[int]
    S3GEN_RUNTIME_FIELD_NUMBER: _ClassVar[int]
    RANDOM_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    NATIVE_SAMPLE_RATE_HZ_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATES_HZ_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FORMATS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    OPEN_STREAM_COUNT_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    WORD_TIMES_FIELD_NUMBER: _ClassVar[int]
    WORD_TIMES_NOTICE_FIELD_NUMBER: _ClassVar[int]
    DECODE_FIELD_NUMBER: _ClassVar[int]
    SETTING_REASON_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    NORMALIZED_LANGUAGES_FIELD_NUMBER: _ClassVar[int]
    SSML_ELEMENTS_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_CODES_FIELD_NUMBER: _ClassVar[int]
    CFG_WEIGHT_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    EXAGGERATION_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    MIN_P_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_DEFAULTS_FIELD_NUMBER: _ClassVar[int]
    CONTINUITY_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    MISSING_LANGUAGES_FIELD_NUMBER: _ClassVar[int]
    version: str
    model: str
    device: str
    t3_runtime: str
    s3gen_runtime: str
    random_weights: bool
    notice: str
    native_sample_rate_hz: int
    sample_rates_hz: _containers.RepeatedScalarFieldContainer[int]
    audio_formats: _containers.RepeatedScalarFieldContainer[AudioFormat]
    limits: Limits
    open_stream_count: int
    tags: _containers.RepeatedScalarFieldContainer[str]
    word_times: bool
    word_times_notice: str
    decode: str
    setting_reason: str
    load: float
    normalized_languages: _containers.RepeatedScalarFieldContainer[str]
    ssml_elements: _containers.RepeatedScalarFieldContainer[str]
    language_codes: _containers.RepeatedScalarFieldContainer[str]
    cfg_weight_default: float
    exaggeration_default: float
    min_p_default: float
    sampling_defaults: Sampling
    continuity: bool
    models: _containers.RepeatedCompositeFieldContainer[ModelInfo]
    missing_languages: _containers.RepeatedCompositeFieldContainer[MissingLanguage]
    def __init__(self, version: _Optional[str] = ..., model: _Optional[str] = ..., device: _Optional[str] = ..., t3_runtime: _Optional[str] = ..., s3gen_runtime: _Optional[str] = ..., random_weights: bool = ..., notice: _Optional[str] = ..., native_sample_rate_hz: _Optional[int] = ..., sample_rates_hz: _Optional[_Iterable[int]] = ..., audio_formats: _Optional[_Iterable[_Union[AudioFormat, str]]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., open_stream_count: _Optional[int] = ..., tags: _Optional[_Iterable[str]] = ..., word_times: bool = ..., word_times_notice: _Optional[str] = ..., decode: _Optional[str] = ..., setting_reason: _Optional[str] = ..., load: _Optional[float] = ..., normalized_languages: _Optional[_Iterable[str]] = ..., ssml_elements: _Optional[_Iterable[str]] = ..., language_codes: _Optional[_Iterable[str]] = ..., cfg_weight_default: _Optional[float] = ..., exaggeration_default: _Optional[float] = ..., min_p_default: _Optional[float] = ..., sampling_defaults: _Optional[_Union[Sampling, _Mapping]] = ..., continuity: bool = ..., models: _Optional[_Iterable[_Union[ModelInfo, _Mapping]]] = ..., missing_languages: _Optional[_Iterable[_Union[MissingLanguage, _Mapping]]] = ...) -> None: ...
