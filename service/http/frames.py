"""WebSocket frames of the contract's messages: protobuf's JSON in text frames, or protobuf in binary frames.

Fields are named as in the .proto files. `{"end": {}}` is what half-closing is in gRPC.
"""

from __future__ import annotations

import json
from enum import Enum
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import DecodeError, Message

from engines.errors import InvalidInput
from mynah.v1 import speech_pb2
from service.http.json_values import LONE_SURROGATE, first_invalid
from service.http.requests import JsonError, bounded_json

_ALLOWED = 'a StreamSpeechRequest as JSON, or {"end": {}}'


class AudioEncoding(Enum):
    """How an audio event carries its data: as a binary frame after the event, or inside it as base64."""

    BINARY = "binary"
    BASE64 = "base64"


class End:
    """The client's last message, after which it sends nothing."""


def parse_text(text: str) -> speech_pb2.StreamSpeechRequest | End:
    """Parses a text frame. Raises InvalidInput."""
    try:
        message = bounded_json(text)
        json.dumps(message, ensure_ascii=False).encode()  # a lone surrogate in a name is a SystemError in protobuf
    except UnicodeEncodeError:
        raise _invalid_frame("text with half of a surrogate pair", LONE_SURROGATE) from None
    except JsonError as error:
        allowed = f"{_ALLOWED}, with {error.allowed}" if error.allowed else _ALLOWED
        raise _invalid_frame(error.content, allowed) from None
    except RecursionError:
        raise _invalid_frame("JSON that is nested too deeply", _ALLOWED) from None
    if message == {"end": {}}:
        return End()
    try:
        request = ParseDict(message, speech_pb2.StreamSpeechRequest()) if isinstance(message, dict) else None
    except (ParseError, ValueError, TypeError, RecursionError, AttributeError):
        request = None
    if request is None:
        raise _refusal(message)
    return request


def _refusal(message: object) -> InvalidInput:
    """The error for JSON that is no request: it names the field at fault."""
    if not isinstance(message, dict):
        return _invalid_frame("another JSON value", _ALLOWED)
    invalid = first_invalid(message, speech_pb2.DESCRIPTOR.message_types_by_name["StreamSpeechRequest"])
    return invalid or _invalid_frame(f"{' and '.join(message)} at once", "one message in each frame")


def parse_binary(data: bytes) -> speech_pb2.StreamSpeechRequest:
    """Parses a binary frame. Raises InvalidInput."""
    try:
        return speech_pb2.StreamSpeechRequest.FromString(data)
    except DecodeError:
        raise _invalid_frame(f"{len(data)} bytes of something else", "a StreamSpeechRequest as protobuf") from None


def _invalid_frame(content: str, allowed: str) -> InvalidInput:
    message = f"The frame is {content}; it must be {allowed}."
    return InvalidInput("frame", message, "MESSAGE_INVALID", value=content, allowed=allowed)


def json_fields(message: Message) -> dict[str, Any]:
    """The JSON members of a message: fields as in the .proto files, with defaults."""
    fields: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return fields


def event_frames(event: dict[str, Any], audio: AudioEncoding) -> list[str | bytes]:
    """The frames of one event, which is given as {name: message}."""
    ((name, message),) = event.items()
    data_frames: list[str | bytes] = []
    fields = json_fields(message)
    if name == "audio" and audio is AudioEncoding.BINARY:
        del fields["data"]
        data_frames = [message.data]
    return [json.dumps({name: fields}, separators=(",", ":")), *data_frames]
