"""The first segment of a silent stream: where it may end, and when the writer's pace makes it end there."""

from __future__ import annotations

import asyncio
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.first_segment import SENTENCES
from engines.config import Sampling
from engines.fake import FakeEngine, Script, fake_voice
from mynah.client.events import AudioChunk, Cancelled
from service.audio.formats import AudioSettings
from service.stream.early_end import EarlyStart, FirstSegment, first_clause_end
from service.stream.policy import StreamPolicy
from service.stream.segmenter import Segmenter
from service.stream.session import Session
from service.stream.settings import StreamSettings
from tests.service.stream.sessions import Received, now_s
from tests.virtual_time import virtual_time

SPEAKS = Script(token_s=0.005, decode_s=0.05)


def stream(mode: FirstSegment, engine: FakeEngine, *, repeatable: bool = False) -> Session:
    sampling = Sampling(seed=7, repeatable=repeatable)
    settings = StreamSettings("default", fake_voice("default"), AudioSettings(), sampling, first_segment=mode)
    return Session(engine, settings, StreamPolicy())


async def write(one: Session, text: str, words_per_s: float) -> None:
    for word in text.split():
        one.write(word + " ")
        await asyncio.sleep(1 / words_per_s)


async def written(
    mode: FirstSegment, text: str, words_per_s: float, *, repeatable: bool = False
) -> tuple[float, Received]:
    """Returns the seconds from the first word to the first audio, and all events."""
    async with stream(mode, FakeEngine(SPEAKS), repeatable=repeatable) as one:
        received, began_s = Received(), now_s()
        writing = asyncio.create_task(write(one, text, words_per_s))
        await received.read_until(one, AudioChunk)
        ttfa_s = now_s() - began_s
        await writing
        one.end()
        await received.read(one)
        return ttfa_s, received


def texts(received: Received) -> list[str]:
    return [event.text for event in received.started]


def test_the_sentences_have_twenty_words() -> None:
    assert {len(sentence.split()) for sentence in SENTENCES} == {20}


def test_at_12_words_a_second_speech_begins_in_half_the_time() -> None:
    ratios = []
    for sentence in SENTENCES:
        waiting_s, whole = virtual_time(written(FirstSegment.SENTENCE, f"{sentence} And so on it goes.", 12))
        early_s, parts = virtual_time(written(FirstSegment.AUTO, f"{sentence} And so on it goes.", 12))
        assert texts(whole)[0] == sentence
        assert " ".join(texts(parts)) == " ".join(texts(whole)), "no word is lost or changed"
        assert len(texts(parts)[0].split()) >= 4
        assert max(done.underrun_s for done in parts.done) <= 0.9, "no pause is longer than the price of its end"
        ratios.append(early_s / waiting_s)
    assert median(ratios) <= 0.5
    assert max(ratios) <= 0.6


@pytest.mark.parametrize("words_per_s", [80.0, 1e6])
def test_a_fast_writer_is_waited_for(words_per_s: float) -> None:
    for sentence in SENTENCES:
        _, received = virtual_time(written(FirstSegment.AUTO, f"{sentence} And so on it goes.", words_per_s))
        assert texts(received)[0] == sentence


def test_a_writer_who_stops_is_not_waited_for() -> None:
    async def conversation() -> float:
        async with stream(FirstSegment.AUTO, FakeEngine(SPEAKS)) as one:
            received = Received()
            one.write("Let me look that up for you, it will ")
            began_s = now_s()
            await received.read_until(one, AudioChunk)
            assert texts(received) == ["Let me look that up for you,"]
            return now_s() - began_s

    assert virtual_time(conversation()) < 0.5


def test_nothing_is_cut_while_the_listener_has_enough_to_hear() -> None:
    async def conversation() -> list[str]:
        async with stream(FirstSegment.AUTO, FakeEngine(SPEAKS)) as one:
            received = Received()
            reading = asyncio.create_task(received.read(one))
            one.write("This first sentence lasts for two seconds and more. ")
            await write(one, "Then comes another one, which is written slowly and has a clause.", 12)
            one.end()
            await reading
            return texts(received)

    assert len(virtual_time(conversation())) == 2


def test_a_seed_keeps_the_sentences() -> None:
    for sentence in SENTENCES[:3]:
        _, received = virtual_time(written(FirstSegment.AUTO, f"{sentence} Then more.", 3, repeatable=True))
        assert texts(received)[0] == sentence


def test_a_flush_a_cancel_and_the_end_leave_nothing_to_cut() -> None:
    async def conversation() -> list[str]:
        async with stream(FirstSegment.AUTO, FakeEngine(SPEAKS)) as one:
            received = Received()
            one.write("One two three four, five six ")
            one.flush(1)
            one.write("seven eight nine ten, eleven twelve ")
            await one.cancel()
            await received.read_until(one, Cancelled)
            await asyncio.sleep(5)
            one.write("The end of it all, my ")
            one.end()
            await received.read(one)
            return texts(received)

    spoken = virtual_time(conversation())
    assert spoken[-1] == "The end of it all, my"
    assert "seven" not in " ".join(spoken)


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), max_size=80), st.sampled_from(SENTENCES))
def test_clause_depends_on_the_text_alone(sizes: list[int], sentence: str) -> None:
    text = f"{sentence} {sentence}"

    def cut(pieces: list[str]) -> list[str]:
        segmenter = Segmenter(first_end=first_clause_end)
        return [segment for piece in pieces for segment in segmenter.feed(piece)] + segmenter.flush()

    pieces, at = [], 0
    for size in sizes:
        pieces.append(text[at : at + size])
        at += size
    whole = cut([text])
    assert cut([*pieces, text[at:]]) == whole
    assert " ".join(whole) == text
    assert whole[1:][-1] == sentence, "only the first segment may end early"


def test_clause_cuts_the_first_segment_after_each_flush() -> None:
    segmenter = Segmenter(first_end=first_clause_end)
    assert segmenter.feed("One two three four, five. Six seven eight nine, ten. And") == [
        "One two three four,",
        "five.",
        "Six seven eight nine, ten.",
    ]
    assert segmenter.flush() == ["And"]
    assert segmenter.feed("Six seven eight nine, ten. ") == ["Six seven eight nine,"]


def test_a_short_clause_a_tag_and_a_number_are_not_ends() -> None:
    assert first_clause_end("Well, yes, I 1,000 do [clear and throat]", 99) is None
    assert first_clause_end("We go there by boat, and then we walk.", 99) == len("We go there by boat,")
    assert first_clause_end("We go there by boat, and then we walk.", 10) is None


def test_the_cheapest_end_that_is_due_is_taken() -> None:
    start = EarlyStart(lambda: None)
    text = "I will ask them and then we can go to the shop on the corner"
    start.update(text, len(text), 10.0, begun=True)
    end, at_s = start.next(10.0) or (0, 0.0)
    assert text[:end].strip() == "I will ask them"
    assert 10.0 < at_s < 12.0
    assert start.next(20.0) == (end, at_s), "the conjunction is a better end than the later prepositions"
