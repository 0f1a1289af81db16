"""A WebSocket's frames as the contract's messages: protobuf's JSON as text, or protobuf itself as binary. Pure.

Fields are named as in the .proto files. What gRPC says by half-closing is `{"end": {}}` here.
"""

from __future__ import annotations

import json
from enum import Enum
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import DecodeError

from engines.errors import invalid_value
from mynah.v1 import speech_pb2

MOST_BYTES = 4 * 1024 * 1024  # as gRPC's
_ALLOWED = 'a StreamSpeechRequest as JSON, or {"end": {}}'


class AudioAs(Enum):
    """How audio comes: its data as a binary frame behind the event, or inside it as base64."""

    BINARY = "binary"
    BASE64 = "base64"


class End:
    """The client has no more to say."""


def read_text(text: str) -> speech_pb2.StreamSpeechRequest | End:
    """A text frame. Raises InvalidInput."""
    try:
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair in a name is a SystemError in protobuf
    except (ValueError, RecursionError):
        raise invalid_value("frame", "what is no JSON", _ALLOWED, "MESSAGE_INVALID") from None
    if found == {"end": {}}:
        return End()
    try:
        request = ParseDict(found, speech_pb2.StreamSpeechRequest()) if isinstance(found, dict) else None
    except (ParseError, ValueError, TypeError, RecursionError, AttributeError):
        request = None
    if request is None:
        raise invalid_value("frame", "another JSON value", _ALLOWED, "MESSAGE_INVALID")
    return request


def read_binary(data: bytes) -> speech_pb2.StreamSpeechRequest:
    """A binary frame. Raises InvalidInput."""
    try:
        return speech_pb2.StreamSpeechRequest.FromString(data)
    except DecodeError:
        allowed = "a StreamSpeechRequest as protobuf"
        raise invalid_value("frame", f"{len(data)} bytes", allowed, "MESSAGE_INVALID") from None


def event_frames(event: dict[str, Any], audio_as: AudioAs) -> list[str | bytes]:
    """The frames that tell one event, given by its name and message."""
    ((name, message),) = event.items()
    behind: list[str | bytes] = []
    told = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    if name == "audio" and audio_as is AudioAs.BINARY:
        del told["data"]
        behind = [message.data]
    return [json.dumps({name: told}, separators=(",", ":")), *behind]
