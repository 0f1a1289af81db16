"""What the server makes of an event, the client reads as the same event."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mynah.client import events
from mynah.client.wire import event_from_wire, event_to_wire
from mynah.v1 import speech_pb2

COUNTS = st.integers(0, 2**31 - 1)
LONG_COUNTS = st.integers(0, 2**63 - 1)
FLUSH_IDS = st.integers(0, 2**64 - 1)
SECONDS = st.floats(allow_nan=False)
SAMPLES = ("offset_samples", "start_samples", "end_samples", "made_samples", "delivered_samples")
BY_NAME: dict[str, st.SearchStrategy[Any]] = dict.fromkeys((*SAMPLES, "consumed_text_chars"), LONG_COUNTS) | {
    "speed": st.floats(0.5, 2.0),
    "flush_id": FLUSH_IDS,
    "dropped_flush_ids": st.lists(FLUSH_IDS).map(tuple),
}
BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    int: COUNTS,
    float: SECONDS,
    bool: st.booleans(),
    str: st.text(),
    bytes: st.binary(),
    int | None: st.none() | COUNTS,
    float | None: st.none() | SECONDS,
    events.EndReason: st.sampled_from(get_args(events.EndReason)),
    events.SkipReason: st.sampled_from(get_args(events.SkipReason)),
    tuple[events.SpokenSpan, ...]: st.deferred(lambda: st.lists(events_of(events.SpokenSpan), max_size=3).map(tuple)),
    events.WordFault: st.sampled_from(get_args(events.WordFault)),
    events.WordGuardAction: st.sampled_from(get_args(events.WordGuardAction)),
    events.WordGuard | None: st.none() | st.deferred(lambda: events_of(events.WordGuard)),
    tuple[events.WordTime, ...]: st.lists(st.deferred(lambda: events_of(events.WordTime)), max_size=3).map(tuple),
    events.WindowFigures | None: st.none() | st.deferred(lambda: events_of(events.WindowFigures)),
}


def events_of(*kinds: type) -> st.SearchStrategy[Any]:
    """Any event of these kinds, with every field over all that the contract can carry."""
    return st.one_of(*(st.builds(kind, **_fields(kind)) for kind in kinds))


def _fields(kind: type) -> dict[str, st.SearchStrategy[Any]]:
    return {name: BY_NAME[name] if name in BY_NAME else BY_TYPE[hint] for name, hint in get_type_hints(kind).items()}


@pytest.mark.parametrize("kind", get_args(events.Event))
@settings(deadline=None)
@given(data=st.data())
def test_an_event_survives_the_wire(kind: type, data: st.DataObject):
    event = data.draw(events_of(kind))
    message = speech_pb2.StreamSpeechResponse(**event_to_wire(event))  # type: ignore[arg-type]
    received = speech_pb2.StreamSpeechResponse.FromString(message.SerializeToString())
    assert event_from_wire(received) == event


@given(events_of(events.AudioChunk, events.Words, events.SegmentStarted, events.SegmentDone))
def test_an_answer_to_synthesize_carries_the_same_events(event: events.Event):
    message = speech_pb2.SynthesizeResponse(**event_to_wire(event))  # type: ignore[arg-type]
    assert event_from_wire(message) == event
