"""The JSON body of `POST /v1/audio/speech`: OpenAI's fields and ours, parsed into the contract's message."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from engines.config import STREAM_SCHEDULES
from engines.errors import InvalidInput, shown
from engines.text.dictionary import Entry, check_count
from mynah.v1 import speech_pb2
from service.audio.formats import AudioFormat
from service.handlers.messages import FIRST_SEGMENT_NUMBERS, format_number, text_settings
from service.http.json_values import LONE_SURROGATE, allowed_values
from service.models import model_not_found
from service.stream.early_end import FirstSegment
from service.stream.settings import Emoji, Markup, UnspeakableText

# OpenAI's names first, then the contract's own.
RESPONSE_FORMATS: dict[str, AudioFormat] = {
    "mp3": AudioFormat.MP3,
    "opus": AudioFormat.OGG_OPUS,
    "aac": AudioFormat.AAC,
    "flac": AudioFormat.FLAC,
    "wav": AudioFormat.WAV,
    "pcm": AudioFormat.PCM_S16LE,
} | {each.value: each for each in AudioFormat}
MEDIA_TYPES = {
    AudioFormat.PCM_S16LE: "audio/pcm",
    AudioFormat.PCM_F32LE: "audio/pcm",
    AudioFormat.WAV: "audio/wav",
    AudioFormat.OGG_OPUS: "audio/ogg",
    AudioFormat.WEBM_OPUS: "audio/webm",
    AudioFormat.MP3: "audio/mpeg",
    AudioFormat.FLAC: "audio/flac",
    AudioFormat.AAC: "audio/aac",
    AudioFormat.MULAW: "audio/basic",
    AudioFormat.ALAW: "audio/x-alaw-basic",
}
STREAM_FORMATS = ("audio", "sse")
# Accepted as names of the first model, for clients that have no others.
MODEL_ALIASES = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")
# Mean the default voice unless a voice has that name, for clients that have no others.
VOICE_ALIASES = (
    "alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer", "verse",
)  # fmt: skip
VOICE_HEADER = "x-mynah-voice"  # of a response: the id of the voice that speaks
REPLACED_VOICE_HEADER = "x-mynah-voice-replaced"  # the alias that was asked for
SCHEDULE_HEADER = "x-mynah-schedule"  # of speech with a seed: both repeat its bytes
DICTIONARY_HEADER = "x-mynah-dictionary-entries"  # the count of respellings that hold
SPEECH_HEADERS = (VOICE_HEADER, REPLACED_VOICE_HEADER, SCHEDULE_HEADER, DICTIONARY_HEADER)
TEXT_FIELDS = (
    "markup",
    "unspeakable_text",
    "drop_thinking",
    "normalize",
    "emoji",
    "paragraph_pause_s",
    "dictionary",
)
WORD_FIELDS = ("word_times", "word_guard", "continuity")
SAMPLING_FIELDS = ("temperature", "top_k", "top_p", "repetition_penalty", "min_p", "seed", "max_speech_token_count")
MODEL_FIELDS = ("language_code", "cfg_weight", "exaggeration")
# Names that other servers of Chatterbox have for the language
LANGUAGE_ALIASES = ("language", "language_id")

_ENTRY_FIELDS = {"word", "respelling", "case_sensitive"}
# The contract's fields that have other names here.
_FIELDS = {
    "text": "input",
    "text.content": "input",
    "voice_id": "voice",
    "settings.audio_format": "response_format",
    "settings.word_times": "word_times",
    "settings.word_guard": "word_guard",
    "settings.continuity": "continuity",
    "settings.sample_rate_hz": "sample_rate_hz",
    "settings.speed": "speed",
    "sampling.max_speech_tokens": "max_speech_token_count",
    "text.dictionary": "dictionary",
    "text.paragraph_pause_s": "paragraph_pause_s",
    "text.emoji": "emoji",
    "settings.schedule": "schedule",
    "settings.model": "model",
} | {f"settings.{name}": name for name in MODEL_FIELDS}


@dataclass(frozen=True)
class SpeechRequest:
    """A parsed request."""

    request: speech_pb2.SynthesizeRequest
    audio_format: AudioFormat
    server_sent_events: bool  # instead of plain audio
    whole: bool  # sent once all of it is made, with its length
    language_field: str = "language_code"  # by which the body names the language, one of several names

    def field_of(self, field: str) -> str:
        """The name that the request's body has for a field of the contract."""
        return self.language_field if field == "settings.language_code" else http_field(field)


def parse(body: dict[str, Any], models: Sequence[str]) -> SpeechRequest:
    """Raises InvalidInput, whose field is named as in `body`, and NotFound for a model other than `models`."""
    for name in body:
        if name not in _PARSERS:
            allowed = ", ".join(_PARSERS)
            message = f"{shown(name)} is not a field of this request; allowed fields are {allowed}."
            raise InvalidInput(name, message, "FIELD_UNKNOWN", allowed=allowed)
    if body.get("input") is None:
        raise InvalidInput("input", "input is missing; send a text.", "FIELD_MISSING", allowed="a text")
    fields = {name: _PARSERS[name](name, value) for name, value in body.items() if value is not None}
    model = model_of(fields.get("model", ""), models)
    audio_format = RESPONSE_FORMATS[fields.get("response_format", "mp3")]
    settings = speech_pb2.SpeechSettings(audio_format=format_number(audio_format))
    _set(settings, "model", model)
    if "voice" in fields:
        _set(settings, "voice_id", fields["voice"], "voice")
    if "sample_rate_hz" in fields:
        _set(settings, "sample_rate_hz", fields["sample_rate_hz"])
    if "speed" in fields:
        settings.speed = fields["speed"]
    if "first_segment" in fields:
        settings.first_segment = FIRST_SEGMENT_NUMBERS[fields["first_segment"]]
    if "schedule" in fields:
        settings.schedule = fields["schedule"]
    for name in SAMPLING_FIELDS:
        if name in fields:
            _set(settings.sampling, name, fields[name])
    language_field = _language_field(fields)
    if language_field in fields:
        _set(settings, "language_code", fields[language_field], language_field)
    for name in (*WORD_FIELDS, *(name for name in MODEL_FIELDS if name != "language_code")):
        if name in fields:
            _set(settings, name, fields[name])
    settings.text.CopyFrom(text_settings(**{name: fields[name] for name in TEXT_FIELDS if name in fields}))
    request = speech_pb2.SynthesizeRequest(settings=settings)
    _set(request, "text", fields["input"], "input")
    events, whole = fields.get("stream_format") == "sse", not fields.get("stream", True)
    if settings.word_times and not events:
        raise _invalid("word_times", "true", "false or absent without stream_format sse")
    if events and whole:
        raise _invalid("stream", "false", "true or absent with stream_format sse")
    return SpeechRequest(request, audio_format, events, whole, language_field)


def _language_field(fields: dict[str, Any]) -> str:
    """The name of the language here. Raises InvalidInput if two of its names have different values."""
    given = {name: fields[name] for name in ("language_code", *LANGUAGE_ALIASES) if name in fields}
    if len(set(given.values())) > 1:
        name, value = list(given.items())[-1]
        first = next(iter(given))
        raise _invalid(name, reprlib.repr(value), f"absent beside {first}, which has another value")
    return next(iter(given), "language_code")


def http_field(field: str) -> str:
    """The name that this body has for a field of the contract."""
    return _FIELDS.get(field, field.removeprefix("sampling."))


def model_of(name: str, models: Sequence[str]) -> str:
    """The contract's name of a model: empty, for the first one, if `name` is one of OpenAI's or empty.

    Raises NotFound for another that is none of `models`.
    """
    if name in models:
        return name
    if name and name not in MODEL_ALIASES:
        raise model_not_found(name, (*models, *MODEL_ALIASES))
    return ""


def _set(message: Any, name: str, value: object, field: str = "") -> None:
    try:
        setattr(message, name, value)
    except (ValueError, TypeError):  # a number out of the field's range, text that is not Unicode
        allowed = allowed_values(message.DESCRIPTOR.fields_by_name[name])
        raise _invalid(field or name, reprlib.repr(value), allowed) from None


def _invalid(name: str, value: str, allowed: str, reason: str = "VALUE_INVALID") -> InvalidInput:
    return InvalidInput(name, f"{name} is {value}; it must be {allowed}.", reason, value=value, allowed=allowed)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise _invalid(name, _json_type(value), "a string")
    return value


def _voice(name: str, value: object) -> str:
    """Parses an id, or OpenAI's object with one."""
    if isinstance(value, dict) and value.keys() == {"id"}:
        value = value["id"]
    if not isinstance(value, str):
        raise _invalid(name, _json_type(value), 'the id of a voice, or {"id": ...}')
    return value


def _whole(name: str, value: object) -> int:
    if type(value) is not int:
        raise _invalid(name, _json_type(value), "a whole number")
    return value


def _number(name: str, value: object) -> float:
    if type(value) not in (int, float):
        raise _invalid(name, _json_type(value), "a number")
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        raise _invalid(name, "too large", "a number that a 64-bit float can hold") from None


def _boolean(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _invalid(name, _json_type(value), "true or false")
    return value


def _one_of(allowed: Iterable[str], reason: str) -> Callable[[str, object], str]:
    names = ", ".join(allowed)

    def parse_name(name: str, value: object) -> str:
        if not isinstance(value, str) or value not in allowed:
            shown = reprlib.repr(value) if isinstance(value, str) else _json_type(value)
            raise _invalid(name, shown, f"one of {names}", reason)
        return value

    return parse_name


def _choice(kind: type[Enum], reason: str) -> Callable[[str, object], Enum]:
    name_of = _one_of([each.value for each in kind], reason)
    return lambda name, value: kind(name_of(name, value))


def _flag(name: str, value: object) -> bool:
    if type(value) is not bool:
        raise _invalid(name, _json_type(value), "true or false")
    return value


def _dictionary(name: str, value: object) -> tuple[Entry, ...]:
    """Parses {"word": "respelling"}, or a list of objects with word, respelling and perhaps case_sensitive."""
    if isinstance(value, dict):
        value = [{"word": word, "respelling": respelling} for word, respelling in value.items()]
    if not isinstance(value, list):
        raise _invalid(name, _json_type(value), "an object of words and respellings, or a list of entries")
    try:
        check_count(len(value))
    except InvalidInput as error:
        raise error.named(name) from None
    return tuple(_entry(name, each) for each in value)


def _entry(name: str, value: object) -> Entry:
    allowed = "entries with the texts word and respelling, and perhaps the boolean case_sensitive"
    if not isinstance(value, dict) or not {"word", "respelling"} <= value.keys() <= _ENTRY_FIELDS:
        raise _invalid(name, f"a list with {reprlib.repr(value)}", allowed)
    word, respelling, case_sensitive = value["word"], value["respelling"], value.get("case_sensitive", False)
    if not (isinstance(word, str) and isinstance(respelling, str) and isinstance(case_sensitive, bool)):
        raise _invalid(name, f"a list with {reprlib.repr(value)}", allowed)
    entry = Entry(word, respelling, case_sensitive)
    try:
        f"{word}{respelling}".encode()
    except UnicodeEncodeError:
        raise _invalid(name, "text with half of a surrogate pair", LONE_SURROGATE) from None
    return entry


def _instructions(name: str, value: object) -> str:
    if _text(name, value).strip():
        raise _invalid(name, "a text", "empty, because the model takes no instructions", "INSTRUCTIONS_UNSUPPORTED")
    return ""


def _json_type(value: object) -> str:
    types = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array"}
    return types.get(type(value), "an object")


_PARSERS: dict[str, Callable[[str, object], Any]] = {
    "model": _text,
    "input": _text,
    "voice": _voice,
    "response_format": _one_of(RESPONSE_FORMATS, "AUDIO_FORMAT_UNKNOWN"),
    "speed": _number,
    "stream_format": _one_of(STREAM_FORMATS, "STREAM_FORMAT_UNKNOWN"),
    "stream": _boolean,
    "instructions": _instructions,
    "sample_rate_hz": _whole,
    "temperature": _number,
    "top_k": _whole,
    "top_p": _number,
    "repetition_penalty": _number,
    "min_p": _number,
    "language_code": _text,
    "language": _text,
    "language_id": _text,
    "cfg_weight": _number,
    "exaggeration": _number,
    "seed": _whole,
    "schedule": _one_of(STREAM_SCHEDULES, "SCHEDULE_UNKNOWN"),
    "max_speech_token_count": _whole,
    "markup": _choice(Markup, "MARKUP_UNKNOWN"),
    "unspeakable_text": _choice(UnspeakableText, "UNSPEAKABLE_TEXT_UNKNOWN"),
    "drop_thinking": _flag,
    "normalize": _flag,
    "emoji": _choice(Emoji, "EMOJI_UNKNOWN"),
    "paragraph_pause_s": _number,
    "dictionary": _dictionary,
    "first_segment": _choice(FirstSegment, "FIRST_SEGMENT_UNKNOWN"),
    "word_times": _boolean,
    "word_guard": _boolean,
    "continuity": _boolean,
}
CAPTIONED_FIELDS = ("return_timestamps",)  # of `/dev/captioned_speech`, beside those of `/v1/audio/speech`


def parse_captioned(body: dict[str, Any], models: Sequence[str]) -> SpeechRequest:
    """As `parse`, for `/dev/captioned_speech`: word times are sent unless `return_timestamps` is false."""
    rest = {name: value for name, value in body.items() if name not in CAPTIONED_FIELDS}
    for name in ("stream_format", "word_times"):
        if name in rest:
            allowed = "return_timestamps and the fields of /v1/audio/speech except stream_format and word_times"
            message = f"{name} is not a field of this request; allowed fields are {allowed}."
            raise InvalidInput(name, message, "FIELD_UNKNOWN", allowed=allowed)
    wanted = body.get("return_timestamps")
    speech = parse(rest, models)
    speech.request.settings.word_times = wanted is None or _boolean("return_timestamps", wanted)
    return speech
