"""The parsers of a client's frames and bodies: every input is parsed, or rejected with the name of its field."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import InvalidInput
from mynah.v1 import speech_pb2
from service.errors import NotFound
from service.http.frames import AudioEncoding, End, event_frames, parse_binary, parse_text
from service.http.speech_request import SpeechRequest, parse
from tests.service.http.clients import HELLO

ROOT = Path(__file__).parents[3]
SEEDS = [
    json.dumps({"open": {"settings": {"voice_id": "default", "audio_format": 4, "sampling": {"seed": "1"}}}}),
    '{"text": {"content": "Hi. \\ud83d\\ude00"}}',
    '{"flush": {"flush_id": "1"}}',
    '{"cancel": {}}',
    '{"end": {}}',
    json.dumps(HELLO | {"speed": 1, "stream_format": "sse", "temperature": 1e300}),
    speech_pb2.StreamSpeechRequest(flush=speech_pb2.Flush(flush_id=2**63)).SerializeToString().decode("latin-1"),
]

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
requests = st.dictionaries(
    st.sampled_from(["open", "text", "flush", "cancel", "end", "settings"]), anything, max_size=2
)


def outcome(parser: Callable[[Any], Any], content: Any) -> Any:
    """Returns the result or the rejection; any other exception fails the test."""
    try:
        return parser(content)
    except (InvalidInput, NotFound) as error:
        return error


@given(frame=(requests | anything).map(json.dumps) | st.text())
@settings(max_examples=300, deadline=None)
def test_any_text_is_parsed_or_rejected(frame: str):
    result = outcome(parse_text, frame)
    assert isinstance(result, speech_pb2.StreamSpeechRequest | End) or result.reason == "MESSAGE_INVALID"


@given(frame=st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_parsed_or_rejected(frame: bytes):
    result = outcome(parse_binary, frame)
    assert isinstance(result, speech_pb2.StreamSpeechRequest) or result.reason == "MESSAGE_INVALID"


@given(change=st.dictionaries(st.sampled_from([*HELLO, "seed", "top_p", "speed", "response_format", "x"]), anything))
@settings(max_examples=300, deadline=None)
def test_any_body_is_parsed_or_rejected_by_one_of_its_fields(change: dict[str, Any]):
    body = HELLO | change
    result = outcome(partial(parse, models=["fake"]), body)
    assert result.request.text == body["input"] if isinstance(result, SpeechRequest) else result.field in body


def test_a_lone_surrogate_is_rejected():
    """Found by atheris: in a field's name protobuf answers it with a SystemError."""
    for frame in ('{"\\ude00": {}}', '{"text": {"\\ude00": 1}}', '{"text": {"content": "\\ude00"}}'):
        assert outcome(parse_text, frame).reason == "MESSAGE_INVALID"


@pytest.mark.parametrize(
    ("message", "field", "said"),
    [
        ({"open": {"setings": {}}}, "open", "open has no field 'setings'; allowed fields are settings"),
        ({"opne": {}}, "frame", "The frame has no field 'opne'; allowed fields are open, text, flush, cancel"),
        ({"open": {"settings": {"voice": "x"}}}, "open.settings", "open.settings has no field 'voice'; allowed fields"),
        ({"text": {"content": 5}}, "text.content", "text.content is 5; it must be Unicode text"),
        ({"text": "Hi."}, "text", "text is 'Hi.'; it must be a JSON object."),
        ({"flush": {"flush_id": "one"}}, "flush.flush_id", "it must be a whole number from 0 to 18446744073709551615."),
        (
            {"open": {"settings": {"audioFormat": "MP4"}}},
            "open.settings.audioFormat",  # as it was written
            "is 'MP4'; it must be one of AUDIO_FORMAT_UNSPECIFIED, AUDIO_FORMAT_PCM_S16LE",
        ),
        ({"open": {"settings": {"sample_rate_hz": 2**40}}}, "open.settings.sample_rate_hz", "whole number of 32 bits."),
        ({"open": {}, "cancel": {}}, "frame", "The frame is open and cancel at once"),
        ({"text": {"content": "\ud83d"}}, "frame", "half of a surrogate pair"),
    ],
)
def test_a_refused_message_names_the_field_at_fault(message: dict[str, Any], field: str, said: str):
    refused = outcome(parse_text, json.dumps(message))
    assert isinstance(refused, InvalidInput)
    assert (refused.reason, refused.field) == ("MESSAGE_INVALID", field)
    assert said in str(refused)


def test_numbers_beyond_a_field_and_half_characters_are_refused_in_plain_words():
    for change, said in (
        ({"seed": -1}, "seed is -1; it must be a whole number from 0 to 18446744073709551615."),
        ({"sample_rate_hz": 2**40}, "it must be a whole number of 32 bits."),
        ({"input": "\ud800 hi"}, "it must be Unicode text without halves of surrogate pairs."),
    ):
        refused = outcome(partial(parse, models=["fake"]), HELLO | change)
        assert isinstance(refused, InvalidInput)
        assert str(refused).endswith(said)


def test_an_event_is_one_text_frame_and_audio_has_its_data_in_a_second_one():
    chunk = speech_pb2.AudioChunk(sequence_number=1, sample_count=2, data=b"\x00\xff")
    head, data = event_frames({"audio": chunk}, AudioEncoding.BINARY)
    fields = json.loads(head)["audio"]
    assert (fields["sequence_number"], fields["sample_count"], data) == ("1", 2, b"\x00\xff")
    assert "data" not in fields
    (whole,) = event_frames({"audio": chunk}, AudioEncoding.BASE64)
    assert json.loads(whole)["audio"]["data"] == "AP8="
    assert event_frames({"flushed": speech_pb2.Flushed(flush_id=3)}, AudioEncoding.BINARY) == [
        '{"flushed":{"flush_id":"3","offset_samples":"0"}}'
    ]


@pytest.mark.timeout(120)
def test_atheris_finds_nothing(tmp_path: Path):
    """A bounded run; the corpus starts with one valid input of each kind."""
    for number, seed in enumerate(SEEDS):
        (tmp_path / str(number)).write_bytes(seed.encode("latin-1", "replace"))
    bounds = ["-runs=20000", "-max_total_time=20", "-malloc_limit_mb=1024"]
    bounds.append("-rss_limit_mb=0")  # it would count the peak of the parent process
    command = [sys.executable, "-m", "tests.service.http.fuzz", *bounds, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "protos")])}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done " in done.stderr
