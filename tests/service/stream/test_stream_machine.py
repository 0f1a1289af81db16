"""Several streams of one server, used in any order: a state machine that knows what each must receive.

test_random_messages.py sends whole streams of messages; here reading, writing and disconnecting are interleaved, and
several streams are open at the same time.
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
class Reader:
    """One stream's reader: takes answers in order and knows which are still due."""

    call: BidiStream
    flushes: list[int] = field(default_factory=list)  # due, oldest first
    cancels: int = 0  # due
    offset: int = 0
    sequence: int = 0
    segment: int = -1
    last_flush: int = 0

    async def read(self) -> bool:
        """Read one answer and check it against the requests. Returns False at the end."""
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
    """A server for all examples, and its event loop."""

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
    """Picks one of the open streams."""
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
        self.open: list[Reader] = []

    def run(self, doing: Coroutine[Any, Any, T]) -> T:
        return site.runner.run(doing)

    def at(self, pick: int) -> Reader:
        return self.open[pick % len(self.open)]

    @rule(rate=st.sampled_from([8000, 24000, 44100]))
    def a_stream_opens_or_is_refused(self, rate: int) -> None:
        reader = Reader(BidiStream(site.at.speech.StreamSpeech()))

        async def opened() -> None:
            await reader.call.write(opening(sample_rate_hz=rate))
            answer = await reader.call.read()
            assert answer is not None
            assert answer.WhichOneof("event") == "opened"

        if len(self.open) < MAX_STREAMS:
            self.run(opened())
            self.open.append(reader)
            return
        with pytest.raises(MynahError) as raised:
            self.run(opened())
        assert (raised.value.reason, raised.value.retryable) == ("STREAMS_EXHAUSTED", True)
        self.run(reader.call.close())

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
    @rule(pick=picked(), max_answers=st.integers(1, 8))
    def answers_are_read(self, pick: int, max_answers: int) -> None:
        """While an answer is due, there is something to read."""
        stream = self.at(pick)

        async def read() -> None:
            for _ in range(max_answers):
                if stream.flushes or stream.cancels:
                    assert await stream.read()

        self.run(read())

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
    def all_clients_disconnect(self) -> None:
        """Disconnect in the middle of everything; the server frees all of it."""

        async def leave() -> None:
            for stream in self.open:
                await stream.call.close()
            await site.at.settled()

        self.run(leave())
        self.open.clear()

    def teardown(self) -> None:
        self.all_clients_disconnect()
        self.run(site.at.check_serves())


TestStreams = Streams.TestCase
TestStreams.settings = settings(
    max_examples=20, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
