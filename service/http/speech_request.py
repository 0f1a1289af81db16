"""What `POST /v1/audio/speech` asks for: OpenAI's fields and ours, read into the contract's message. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from engines.errors import invalid_value
from mynah.v1 import speech_pb2
from service.audio.formats import AudioFormat
from service.errors import NotFound
from service.handlers.messages import format_number

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
# Clients that know no other model's name than these are spoken to by the one that is loaded.
MODEL_ALIASES = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")
SAMPLING_FIELDS = ("temperature", "top_k", "top_p", "repetition_penalty", "seed", "max_speech_token_count")

# How the contract names what this surface names otherwise.
_FIELDS = {
    "text": "input",
    "voice_id": "voice",
    "settings.audio_format": "response_format",
    "settings.sample_rate_hz": "sample_rate_hz",
    "sampling.max_speech_tokens": "max_speech_token_count",
}


@dataclass(frozen=True)
class SpeechRequest:
    """One request."""

    request: speech_pb2.SynthesizeRequest
    audio_format: AudioFormat
    events: bool  # server-sent events instead of plain audio


def read(body: dict[str, Any], model: str) -> SpeechRequest:
    """Raises InvalidInput naming the field as it stands here, NotFound for another model than the one that speaks."""
    for name in body:
        if name not in _READERS:
            raise invalid_value(name, "a field", ", ".join(_READERS), "FIELD_UNKNOWN")
    missing = [name for name in ("model", "input", "voice") if body.get(name) is None]
    if missing:
        raise invalid_value(missing[0], "nothing", "a value", "FIELD_MISSING")
    given = {name: _READERS[name](name, value) for name, value in body.items() if value is not None}
    _check_model(given["model"], model)
    audio_format = RESPONSE_FORMATS[given.get("response_format", "mp3")]
    settings = speech_pb2.SpeechSettings(audio_format=format_number(audio_format))
    _set(settings, "voice_id", given["voice"], "voice")
    if "sample_rate_hz" in given:
        _set(settings, "sample_rate_hz", given["sample_rate_hz"])
    for name in SAMPLING_FIELDS:
        if name in given:
            _set(settings.sampling, name, given[name])
    request = speech_pb2.SynthesizeRequest(settings=settings)
    _set(request, "text", given["input"], "input")
    return SpeechRequest(request, audio_format, given.get("stream_format") == "sse")


def field_here(field: str) -> str:
    """How this surface's body names a field of the contract."""
    return _FIELDS.get(field, field.removeprefix("sampling."))


def _check_model(asked: str, model: str) -> None:
    names = (model, *MODEL_ALIASES)
    if asked not in names:
        allowed = ", ".join(names)
        message = f"there is no model {asked!r} here; allowed: {allowed}"
        raise NotFound("MODEL_NOT_FOUND", message, field="model", value=asked, allowed=allowed)


def _set(message: Any, name: str, value: object, field: str = "") -> None:
    try:
        setattr(message, name, value)
    except (ValueError, TypeError) as error:  # a number that is too large, text that is no Unicode
        raise invalid_value(field or name, value, f"what the contract can carry ({error})", "VALUE_INVALID") from None


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise invalid_value(name, _kind(value), "a string", "VALUE_INVALID")
    return value


def _voice(name: str, value: object) -> str:
    """An id, or OpenAI's object around one."""
    if isinstance(value, dict) and value.keys() == {"id"}:
        value = value["id"]
    if not isinstance(value, str):
        raise invalid_value(name, _kind(value), 'a voice\'s id, or {"id": ...}', "VALUE_INVALID")
    return value


def _whole(name: str, value: object) -> int:
    if type(value) is not int:
        raise invalid_value(name, _kind(value), "a whole number", "VALUE_INVALID")
    return value


def _number(name: str, value: object) -> float:
    if type(value) not in (int, float):
        raise invalid_value(name, _kind(value), "a number", "VALUE_INVALID")
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        raise invalid_value(name, "a number that is too large", "a 64-bit float", "VALUE_INVALID") from None


def _one_of(allowed: Iterable[str], reason: str) -> Callable[[str, object], str]:
    def read(name: str, value: object) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise invalid_value(name, value if isinstance(value, str) else _kind(value), ", ".join(allowed), reason)
        return value

    return read


def _speed(name: str, value: object) -> float:
    speed = _number(name, value)
    if speed != 1.0:
        raise invalid_value(name, value, "1.0: the model speaks at one speed", "SPEED_UNSUPPORTED")
    return speed


def _instructions(name: str, value: object) -> str:
    if _text(name, value).strip():
        raise invalid_value(name, "a text", "none: the model takes no instructions", "INSTRUCTIONS_UNSUPPORTED")
    return ""


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"


_READERS: dict[str, Callable[[str, object], Any]] = {
    "model": _text,
    "input": _text,
    "voice": _voice,
    "response_format": _one_of(RESPONSE_FORMATS, "AUDIO_FORMAT_UNKNOWN"),
    "speed": _speed,
    "stream_format": _one_of(STREAM_FORMATS, "STREAM_FORMAT_UNKNOWN"),
    "instructions": _instructions,
    "sample_rate_hz": _whole,
    "temperature": _number,
    "top_k": _whole,
    "top_p": _number,
    "repetition_penalty": _number,
    "seed": _whole,
    "max_speech_token_count": _whole,
}
