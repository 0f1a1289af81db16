"""Fuzzes every parser of an HTTP client's bytes with atheris: an input is parsed or rejected.

Run as a program it fuzzes until stopped: `python -m tests.service.http.fuzz`; it takes libFuzzer's arguments.
"""

from __future__ import annotations

import json
import sys

import atheris

with atheris.instrument_imports(include=["service.http", "google.protobuf.json_format"]):
    from google.protobuf.json_format import MessageToDict

    from service.http.error_responses import HttpError
    from service.http.frames import End, parse_binary, parse_text
    from service.http.origins import Origins
    from service.http.speech_request import parse

from engines.errors import InvalidInput
from mynah.v1 import speech_pb2
from service.errors import NotFound


def once(data: bytes) -> None:
    """Runs one input through every parser. Raises what no parser may raise."""
    text = data.decode("utf-8", "replace")
    for request in (_parse(parse_text, text), _parse(parse_binary, data)):
        if isinstance(request, speech_pb2.StreamSpeechRequest):
            MessageToDict(request)
    body = _json(text)
    if isinstance(body, dict):
        _parse(lambda: parse(body, "fake"))
    _parse(lambda: Origins(("https://app.example",)).check(_scope(data)))


def _parse(parser, *arguments):
    try:
        parsed = parser(*arguments)
    except (InvalidInput, NotFound, HttpError):
        return None
    return None if isinstance(parsed, End) else parsed


def _json(text: str):
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _scope(data: bytes) -> dict:
    return {"type": "http", "method": "POST", "headers": [(b"origin", data), (b"host", data[:10])]}


if __name__ == "__main__":
    atheris.Setup(sys.argv, once)
    atheris.Fuzz()
