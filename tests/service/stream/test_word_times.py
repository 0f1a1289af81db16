"""Words on the timeline of a session: in every format and at every rate, with their chunk, and after a cancel."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.fake import FakeEngine, Script
from mynah.client.events import AudioChunk, Cancelled, SegmentDone, Words, WordTime
from service.audio.formats import AudioFormat, AudioSettings
from tests.service.stream.sessions import Received, session
from tests.virtual_time import virtual_time

TEXT = "One two three four five six seven. And eight nine ten eleven twelve!"
SLOW = Script(token_s=0.01, decode_s=0.1)
FORMATS = [AudioSettings(each, rate) for each in AudioFormat for rate in {each.rates_hz[0], each.rates_hz[-1]}]


async def spoken(text: str, audio: AudioSettings | None = None, script: Script = SLOW) -> Received:
    async with session(FakeEngine(script), audio, word_times=True) as one:
        one.write(text)
        one.end()
        return await Received().read(one)


def words_of(received: Received, segment: int | None = None) -> list[WordTime]:
    return [
        word
        for event in received.events
        if isinstance(event, Words) and segment in (None, event.segment_index)
        for word in event.words
    ]


@pytest.mark.parametrize("audio", FORMATS, ids=lambda each: f"{each.audio_format.value}-{each.sample_rate_hz}")
def test_words_lie_where_the_decoded_audio_says_them(audio: AudioSettings):
    received = virtual_time(spoken(TEXT, audio))
    assert [word.text for word in words_of(received)] == TEXT.replace(".", "").replace("!", "").split()
    for started in received.started:
        for word in words_of(received, started.segment_index):
            assert word.text == started.text[word.start_char : word.end_char]
            # the fake engine gives each character 40 ms; a codec's own delay comes before them
            begins_s = (word.start_samples - started.offset_samples - audio.delay_samples) / audio.sample_rate_hz
            assert begins_s == pytest.approx(word.start_char * 0.04, abs=0.007)
            length_s = (word.end_samples - word.start_samples) / audio.sample_rate_hz
            assert length_s == pytest.approx(len(word.text) * 0.04, abs=0.001)


@pytest.mark.parametrize("audio", FORMATS, ids=lambda each: f"{each.audio_format.value}-{each.sample_rate_hz}")
def test_a_word_comes_behind_the_chunk_that_holds_its_end_and_at_most_one_later(audio: AudioSettings):
    received = virtual_time(spoken(TEXT, audio))
    sent, before, done = 0, 0, set()
    for event in received.events:
        if isinstance(event, AudioChunk):
            before, sent = sent, event.offset_samples + event.samples
        elif isinstance(event, SegmentDone):
            done.add(event.segment_index)
        elif isinstance(event, Words):
            assert event.segment_index not in done
            for word in event.words:
                assert word.end_samples <= sent
                late = [chunk for chunk in received.audio if word.end_samples <= chunk.offset_samples < sent]
                assert len(late) <= 1
    assert before < sent


@pytest.mark.parametrize("speed", [0.5, 0.8, 1.3, 2.0])
@pytest.mark.parametrize("rate_hz", [16_000, 24_000])
def test_words_follow_the_speed(speed: float, rate_hz: int):
    async def at_speed() -> Received:
        audio = AudioSettings(AudioFormat.PCM_S16LE, rate_hz)
        async with session(FakeEngine(SLOW), audio, word_times=True, speed=speed) as one:
            one.write(TEXT)
            one.end()
            return await Received().read(one)

    received = virtual_time(at_speed())
    sent = 0
    for event in received.events:
        sent += event.samples if isinstance(event, AudioChunk) else 0
        if isinstance(event, Words):
            assert all(word.end_samples <= sent for word in event.words)
    for started in received.started:
        words = words_of(received, started.segment_index)
        assert len(words) == len(_uttered(started.text))
        for word in words:
            begins_s = (word.start_samples - started.offset_samples) / rate_hz
            assert begins_s == pytest.approx(word.start_char * 0.04 / speed, abs=0.002)


def test_words_keep_the_order_of_the_text_and_do_not_overlap():
    received = virtual_time(spoken(TEXT))
    words = words_of(received)
    assert all(one.end_samples <= later.start_samples for one, later in pairwise(words))


def test_without_being_asked_there_are_no_words_and_the_same_bytes():
    async def plain() -> Received:
        async with session(FakeEngine(SLOW)) as one:
            one.write(TEXT)
            one.end()
            return await Received().read(one)

    received = virtual_time(plain())
    assert not words_of(received)
    assert received.data == virtual_time(spoken(TEXT)).data


@settings(deadline=None, max_examples=30)
@given(read=st.integers(1, 6), rate=st.sampled_from([8_000, 22_050, 24_000, 48_000]))
def test_after_a_cancel_come_the_words_that_were_really_sent(read: int, rate: int):
    async def cancelled() -> tuple[Received, Cancelled]:
        async with session(FakeEngine(SLOW), AudioSettings(AudioFormat.PCM_S16LE, rate), word_times=True) as one:
            one.write(TEXT + " ")
            received = Received()
            for _ in range(read):
                event = await one.next_event()
                assert event is not None
                received.events.append(event)
            await one.cancel()
            answer = await received.read_until(one, Cancelled)
            assert isinstance(answer, Cancelled)
            one.write("Again.")
            one.end()
            await received.read(one)
            return received, answer

    received, answer = virtual_time(cancelled())
    ended = {done.segment_index for done in received.done}
    started = [each for each in received.started if each.segment_index == answer.segment_index]
    if answer.segment_index is None:
        assert answer.words == ()
    else:
        begins = started[0].offset_samples
        expected = [
            word
            for word in _uttered(started[0].text)
            if begins + round(word[0] * 0.04 * rate) < answer.delivered_samples
        ]
        assert [(word.start_char, word.end_char) for word in answer.words] == expected
        for word in answer.words:
            assert word.end_samples <= answer.delivered_samples
    again = words_of(received, max(ended))
    assert [word.text for word in again] == ["Again"]
    assert again[0].start_samples >= answer.delivered_samples


def _uttered(text: str) -> list[tuple[int, int]]:
    import re

    return [match.span() for match in re.finditer(r"\w+", text)]
