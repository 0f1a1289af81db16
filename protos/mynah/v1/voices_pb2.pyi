import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Voice(_message.Message):
    __slots__ = ("voice_id", "name", "create_time", "built_in", "reference_s", "used_from_s", "used_s", "speech_share", "speech_to_noise_db", "kept", "warnings", "similarity", "similarity_skipped", "recording_kept")
    VOICE_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    BUILT_IN_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_S_FIELD_NUMBER: _ClassVar[int]
    USED_FROM_S_FIELD_NUMBER: _ClassVar[int]
    USED_S_FIELD_NUMBER: _ClassVar[int]
    SPEECH_SHARE_FIELD_NUMBER: _ClassVar[int]
    SPEECH_TO_NOISE_DB_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_SKIPPED_FIELD_NUMBER: _ClassVar[int]
    RECORDING_KEPT_FIELD_NUMBER: _ClassVar[int]
    voice_id: str
    name: str
    create_time: _timestamp_pb2.Timestamp
    built_in: bool
    reference_s: float
    used_from_s: float
    used_s: float
    speech_share: float
    speech_to_noise_db: float
    kept: bool
    warnings: _containers.RepeatedCompositeFieldContainer[VoiceWarning]
    similarity: float
    similarity_skipped: str
    recording_kept: bool
    def __init__(self, voice_id: _Optional[str] = ..., name: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., built_in: bool = ..., reference_s: _Optional[float] = ..., used_from_s: _Optional[float] = ..., used_s: _Optional[float] = ..., speech_share: _Optional[float] = ..., speech_to_noise_db: _Optional[float] = ..., kept: bool = ..., warnings: _Optional[_Iterable[_Union[VoiceWarning, _Mapping]]] = ..., similarity: _Optional[float] = ..., similarity_skipped: _Optional[str] = ..., recording_kept: bool = ...) -> None: ...

class VoiceWarning(_message.Message):
    __slots__ = ("reason", "message")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class CreateVoiceRequest(_message.Message):
    __slots__ = ("metadata", "audio_chunk")
    METADATA_FIELD_NUMBER: _ClassVar[int]
    AUDIO_CHUNK_FIELD_NUMBER: _ClassVar[int]
    metadata: NewVoice
    audio_chunk: bytes
    def __init__(self, metadata: _Optional[_Union[NewVoice, _Mapping]] = ..., audio_chunk: _Optional[bytes] = ...) -> None: ...

class NewVoice(_message.Message):
    __slots__ = ("name", "consent", "voice_id", "normalize_loudness", "keep_recording", "model")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONSENT_FIELD_NUMBER: _ClassVar[int]
    VOICE_ID_FIELD_NUMBER: _ClassVar[int]
    NORMALIZE_LOUDNESS_FIELD_NUMBER: _ClassVar[int]
    KEEP_RECORDING_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    name: str
    consent: bool
    voice_id: str
    normalize_loudness: bool
    keep_recording: bool
    model: str
    def __init__(self, name: _Optional[str] = ..., consent: bool = ..., voice_id: _Optional[str] = ..., normalize_loudness: bool = ..., keep_recording: bool = ..., model: _Optional[str] = ...) -> None: ...

class CreateVoiceResponse(_message.Message):
    __slots__ = ("voice",)
    VOICE_FIELD_NUMBER: _ClassVar[int]
    voice: Voice
    def __init__(self, voice: _Optional[_Union[Voice, _Mapping]] = ...) -> None: ...

class GetVoiceRequest(_message.Message):
    __slots__ = ("voice_id",)
    VOICE_ID_FIELD_NUMBER: _ClassVar[int]
    voice_id: str
    def __init__(self, voice_id: _Optional[str] = ...) -> None: ...

class GetVoiceResponse(_message.Message):
    __slots__ = ("voice",)
    VOICE_FIELD_NUMBER: _ClassVar[int]
    voice: Voice
    def __init__(self, voice: _Optional[_Union[Voice, _Mapping]] = ...) -> None: ...

class ListVoicesRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListVoicesResponse(_message.Message):
    __slots__ = ("voices", "next_page_token")
    VOICES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    voices: _containers.RepeatedCompositeFieldContainer[Voice]
    next_page_token: str
    def __init__(self, voices: _Optional[_Iterable[_Union[Voice, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteVoiceRequest(_message.Message):
    __slots__ = ("voice_id",)
    VOICE_ID_FIELD_NUMBER: _ClassVar[int]
    voice_id: str
    def __init__(self, voice_id: _Optional[str] = ...) -> None: ...

class DeleteVoiceResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
