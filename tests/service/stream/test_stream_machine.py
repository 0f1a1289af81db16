"""Several streams of one server, spoken to in any order: a state machine that knows what each must hear.

test_random_messages.py throws whole conversations; here reading, writing and leaving are interleaved, and streams live
beside each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from mynah.client.errors import MynahError
from mynah.client.transport import BidiStream
from tests.service.serving import CANCEL, Request, Serving, flush, opening, serving, text

T = TypeVar("T")
MAX_STREAMS = 3
MAX_TEXT_CHARS = 1000


@dataclass
class Ear:
    """One stream's listener: takes answers in order and knows what is still owed."""

    call: BidiStream
    flushes: list[int] = field(default_factory=list)  # owed, oldest first
    cancels: int = 0  # owed
    offset: int = 0
    sequence: int = 0
    segment: int = -1
    last_flush: int = 0

    async def read(self) -> bool:
        """One answer; False at the end. Whatever it is must fit what was said."""
        async with asyncio.timeout(10):
            answer = await self.call.read()
        if answer is None:
            return False
        match answer.WhichOneof("event"):
            case "segment_started":
                assert answer.segment_started.segment_index > self.segment
                assert answer.segment_started.offset_samples == self.offset
                self.segment = answer.segment_started.segment_index
            case "audio":
                assert (answer.audio.sequence_number, answer.audio.offset_samples) == (self.sequence, self.offset)
                assert answer.audio.segment_index == self.segment
                self.sequence += 1
                self.offset += answer.audio.sample_count
            case "flushed":
                assert answer.flushed.flush_id == self.flushes.pop(0)
                assert answer.flushed.offset_samples == self.offset
            case "cancelled":
                self.cancels -= 1
                assert self.cancels >= 0
                assert answer.cancelled.delivered_sample_count == self.offset
                for dropped in answer.cancelled.dropped_flush_ids:
                    assert dropped == self.flushes.pop(0)
            case "segment_done":
                assert answer.segment_done.segment_index >= self.segment
            case other:
                raise AssertionError(f"{other} in the middle of a stream")
        return True


@dataclass
class Site:
    """A server that stays up for all examples, and the loop it lives on."""

    runner: asyncio.Runner
    at: Serving


site: Site


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    global site
    with asyncio.Runner() as runner:
        manager = serving(max_streams=MAX_STREAMS, max_pending_text_chars=MAX_TEXT_CHARS)
        site = Site(runner, runner.run(manager.__aenter__()))
        yield
        runner.run(manager.__aexit__(None, None, None))


def picked() -> Any:
    """Which of the open streams a rule is about."""
    return st.integers(0, MAX_STREAMS - 1)


WORDS = ["Hello there. ", "no end", " ", "One. Two. Three.", "...", "é☃\n\n"]
BAD = [
    (Request(), "MESSAGE_INVALID"),
    (opening(), "STREAM_ALREADY_OPEN"),
    (flush(0), "FLUSH_ID_INVALID"),
    (text("x" * (MAX_TEXT_CHARS + 1)), "TEXT_BACKLOG_FULL"),
]
some_are_open = precondition(lambda machine: machine.open)


class Streams(RuleBasedStateMachine):
    """At most `MAX_STREAMS` open streams."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[Ear] = []

    def run(self, doing: Coroutine[Any, Any, T]) -> T:
        return site.runner.run(doing)

    def at(self, pick: int) -> Ear:
        return self.open[pick % len(self.open)]

    @rule(rate=st.sampled_from([8000, 24000, 44100]))
    def a_stream_opens_or_is_refused(self, rate: int) -> None:
        ear = Ear(BidiStream(site.at.speech.StreamSpeech()))

        async def opened() -> None:
            await ear.call.write(opening(sample_rate_hz=rate))
            answer = await ear.call.read()
            assert answer is not None
            assert answer.WhichOneof("event") == "opened"

        if len(self.open) < MAX_STREAMS:
            self.run(opened())
            self.open.append(ear)
            return
        with pytest.raises(MynahError) as raised:
            self.run(opened())
        assert (raised.value.reason, raised.value.retryable) == ("STREAMS_EXHAUSTED", True)
        self.run(ear.call.close())

    @some_are_open
    @rule(pick=picked(), content=st.sampled_from(WORDS))
    def text_is_written(self, pick: int, content: str) -> None:
        self.run(self.at(pick).call.write(text(content)))

    @some_are_open
    @rule(pick=picked(), ahead=st.integers(1, 5))
    def a_flush_is_asked_for(self, pick: int, ahead: int) -> None:
        stream = self.at(pick)
        stream.last_flush += ahead
        stream.flushes.append(stream.last_flush)
        self.run(stream.call.write(flush(stream.last_flush)))

    @some_are_open
    @rule(pick=picked())
    def a_cancel_is_asked_for(self, pick: int) -> None:
        self.at(pick).cancels += 1
        self.run(self.at(pick).call.write(CANCEL))

    @some_are_open
    @rule(pick=picked(), most=st.integers(1, 8))
    def something_is_heard(self, pick: int, most: int) -> None:
        """As long as an answer is owed there is something to read."""
        stream = self.at(pick)

        async def hear() -> None:
            for _ in range(most):
                if stream.flushes or stream.cancels:
                    assert await stream.read()

        self.run(hear())

    @some_are_open
    @rule(pick=picked())
    def the_rest_is_spoken(self, pick: int) -> None:
        stream = self.open.pop(pick % len(self.open))

        async def finish() -> None:
            await stream.call.done_writing()
            while await stream.read():
                pass

        self.run(finish())
        assert (stream.flushes, stream.cancels) == ([], 0)

    @some_are_open
    @rule(pick=picked(), bad=st.sampled_from(BAD))
    def nonsense_ends_that_stream_alone(self, pick: int, bad: tuple[Request, str]) -> None:
        stream = self.open.pop(pick % len(self.open))
        request, reason = bad

        async def until_the_error() -> None:
            await stream.call.write(request)
            while await stream.read():
                pass

        with pytest.raises(MynahError) as raised:
            self.run(until_the_error())
        assert raised.value.reason == reason

    @rule()
    def everybody_goes_away(self) -> None:
        """In the middle of everything; the server lets go of all of it."""

        async def leave() -> None:
            for stream in self.open:
                await stream.call.close()
            await site.at.settled()

        self.run(leave())
        self.open.clear()

    def teardown(self) -> None:
        self.everybody_goes_away()
        self.run(site.at.check_serves())


TestStreams = Streams.TestCase
TestStreams.settings = settings(
    max_examples=20, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
