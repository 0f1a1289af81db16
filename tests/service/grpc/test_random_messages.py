"""Random messages on a stream get the answers that the contract promises, and the server goes on serving.

The oracle below is the contract in a few lines: it knows how a sequence of messages must end.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mynah.client.errors import MynahError
from mynah.client.transport import half_close, send
from mynah.v1 import speech_pb2
from tests.service.serving import CANCEL, Request, Serving, converse, flush, opening, serving, text

MAX_TEXT_CHARS = 1000

GOOD = [opening(), opening(sample_rate_hz=8000), opening(audio_format=3)]
GOOD.append(opening(sampling={"seed": 1, "temperature": 0}))

good_openings = st.sampled_from(GOOD)
bad_openings = st.sampled_from(
    [
        opening(voice_id="nobody"),
        opening(voice_id="Not an id"),
        opening(audio_format=77),
        opening(sample_rate_hz=1),
        opening(sampling={"top_p": -1.0}),
        opening(sampling={"temperature": float("nan")}),
    ]
)
some_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.sampled_from(
    ["", "  ", "Hello there. ", "One. Two. Three. ", "...", "no end", "\n\n"]
)
fine = some_text.map(text) | st.integers(1, 40).map(flush) | st.just(CANCEL)
rare = good_openings | bad_openings | st.sampled_from([Request(), flush(0), text("x" * (MAX_TEXT_CHARS + 1))])
anything = st.lists(fine | fine | fine | rare, max_size=12)
speech_handler = st.builds(lambda first, rest: [first, *rest], good_openings, anything) | anything

REASONS_OF_BAD_OPENINGS = {
    "VOICE_NOT_FOUND",
    "VOICE_ID_INVALID",
    "AUDIO_FORMAT_UNKNOWN",
    "SAMPLE_RATE_UNSUPPORTED",
    "SAMPLING_OUT_OF_RANGE",
}


def expected_reasons(requests: list[Request]) -> set[str]:
    """The reasons for which these messages may be refused; empty if they must end well."""
    if not requests or requests[0].WhichOneof("message") != "open":
        return {"MESSAGE_INVALID" if requests and requests[0].WhichOneof("message") is None else "STREAM_NOT_OPEN"}
    if requests[0] not in GOOD:
        return REASONS_OF_BAD_OPENINGS
    last_flush = 0
    for request in requests[1:]:
        kind = request.WhichOneof("message")
        if kind is None:
            return {"MESSAGE_INVALID"}
        if kind == "open":
            return {"STREAM_ALREADY_OPEN"}
        if kind == "text" and len(request.text.content) > MAX_TEXT_CHARS:
            return {"TEXT_BACKLOG_FULL"}
        if kind == "flush":
            if request.flush.flush_id <= last_flush:
                return {"FLUSH_ID_INVALID" if not request.flush.flush_id else "FLUSH_ID_REUSED"}
            last_flush = request.flush.flush_id
    return set()


def check_answers(requests: list[Request], answers: list[speech_pb2.StreamSpeechResponse]) -> None:
    """Checks every stream that ends well."""
    kinds = [answer.WhichOneof("event") for answer in answers]
    assert kinds[0] == "opened"
    assert kinds.count("opened") == 1
    assert kinds.count("cancelled") == requests.count(CANCEL)
    sent = [request.flush.flush_id for request in requests if request.HasField("flush")]
    answered = [answer.flushed.flush_id for answer in answers if answer.HasField("flushed")]
    dropped = [number for answer in answers for number in answer.cancelled.dropped_flush_ids]
    assert sorted(answered + dropped) == sent
    assert answered == sorted(answered)
    check_audio(answers)


def check_audio(answers: list[speech_pb2.StreamSpeechResponse]) -> None:
    offset = sequence = 0
    newest, cut_off = -1, -1  # segments: the last one that began, the last one that a cancel ended
    per_segment: Counter[int] = Counter()
    for answer in answers:
        if answer.HasField("segment_started"):
            assert answer.segment_started.segment_index > newest
            assert answer.segment_started.offset_samples == offset
            newest = answer.segment_started.segment_index
        elif answer.HasField("audio"):
            chunk = answer.audio
            assert (chunk.sequence_number, chunk.offset_samples) == (sequence, offset)
            assert chunk.segment_index == newest > cut_off
            sequence, offset = sequence + 1, offset + chunk.sample_count
            per_segment[newest] += chunk.sample_count
        elif answer.HasField("segment_done"):
            assert answer.segment_done.sample_count == per_segment[answer.segment_done.segment_index]
        elif answer.HasField("cancelled"):
            assert answer.cancelled.delivered_sample_count == offset <= answer.cancelled.made_sample_count
            cut_off = newest
        elif answer.HasField("flushed"):
            assert answer.flushed.offset_samples == offset


@dataclass
class Site:
    """A server for all examples, and its event loop."""

    runner: asyncio.Runner
    at: Serving


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with asyncio.Runner() as runner:
        manager = serving(max_pending_text_chars=MAX_TEXT_CHARS, idle_timeout_s=5.0)
        at = runner.run(manager.__aenter__())
        yield Site(runner, at)
        runner.run(manager.__aexit__(None, None, None))


@given(requests=speech_handler)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sequence_of_messages_ends_as_the_contract_says(site: Site, requests: list[Request]):
    async def run() -> None:
        reasons = expected_reasons(requests)
        if reasons:
            with pytest.raises(MynahError) as raised:
                await converse(site.at, *requests)
            assert raised.value.reason in reasons
        else:
            check_answers(requests, await converse(site.at, *requests))
        await site.at.settled()

    site.runner.run(run())


@dataclass
class Raw:
    """Random bytes instead of a message."""

    data: bytes

    def SerializeToString(self) -> bytes:
        return self.data


@given(parts=st.lists(st.binary(max_size=200), max_size=5))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_bytes_do_no_harm(site: Site, parts: list[bytes]):
    async def run() -> None:
        method = site.at.channel.stream_stream("/mynah.v1.Speech/StreamSpeech", request_serializer=bytes)
        call = method()
        for part in parts:
            await send(call, Raw(part))
        await half_close(call)
        assert (await call.code()).name in {"OK", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND"}
        await site.at.settled()
        await site.at.check_serves()

    site.runner.run(run())
