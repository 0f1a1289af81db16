"""Bytes found by atheris, thrown at everything that reads what an HTTP client sent: it is read or refused.

Run by itself it fuzzes until stopped: `python -m tests.service.http.fuzz`; it takes libFuzzer's arguments.
"""

from __future__ import annotations

import json
import sys

import atheris

with atheris.instrument_imports(include=["service.http", "google.protobuf.json_format"]):
    from google.protobuf.json_format import MessageToDict

    from service.http.error_responses import HttpError
    from service.http.frames import End, read_binary, read_text
    from service.http.origins import Origins
    from service.http.speech_request import read

from engines.errors import InvalidInput
from mynah.v1 import speech_pb2
from service.errors import NotFound


def once(data: bytes) -> None:
    """One input, in every reader. Raises what none of them may raise."""
    text = data.decode("utf-8", "replace")
    for request in (_read(read_text, text), _read(read_binary, data)):
        if isinstance(request, speech_pb2.StreamSpeechRequest):
            MessageToDict(request)
    body = _json(text)
    if isinstance(body, dict):
        _read(lambda: read(body, "fake"))
    _read(lambda: Origins(("https://app.example",)).check(_scope(data)))


def _read(reader, *arguments):
    try:
        found = reader(*arguments)
    except (InvalidInput, NotFound, HttpError):
        return None
    return None if isinstance(found, End) else found


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
