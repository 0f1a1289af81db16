"""Pauses and marks on a stream's timeline: exact, in every format and rate, and gone with a cancel."""

from __future__ import annotations

import numpy as np
import pytest

from engines.fake import FakeEngine, Script
from mynah.client.events import AudioChunk, Cancelled, MarkReached, SegmentDone, SegmentStarted
from service.audio.formats import AudioFormat, AudioSettings
from service.stream.settings import Markup, TextSettings
from tests.service.audio.decoding import decode
from tests.service.stream.sessions import Received, session, speak
from tests.virtual_time import virtual_time

SSML = TextSettings(Markup.SSML, normalize=True)
TEXT = "One.<mark name='a'/> <break time='500ms'/><mark name='b'/>Two."


def spoken(text: str, audio: AudioSettings | None = None, chosen: TextSettings = SSML) -> Received:
    async def run() -> Received:
        async with session(FakeEngine(), audio, text=chosen) as one:
            one.write(text)
            one.end()
            return await Received().read(one)

    return virtual_time(run())


@pytest.mark.parametrize("rate_hz", [8000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000])
def test_a_pause_is_exact_silence_at_the_streams_rate(rate_hz: int) -> None:
    received = spoken(TEXT, AudioSettings(sample_rate_hz=rate_hz))
    received.check_gapless()
    first, pause, last = received.done
    assert [done.pause for done in received.done] == [False, True, False]
    assert abs(pause.samples - rate_hz / 2) < 1
    assert (pause.offset_samples, last.offset_samples) == (first.samples, first.samples + pause.samples)
    samples = np.frombuffer(received.data, "<i2")
    assert not samples[first.samples : last.offset_samples].any()
    assert samples[: first.samples].any()
    assert [(started.text, started.pause_s) for started in received.started] == [
        ("One.", 0.0),
        ("", 0.5),
        ("Two.", 0.0),
    ]


def test_marks_are_reached_between_the_segments_they_part() -> None:
    received = spoken(TEXT)
    marks = [event for event in received.events if isinstance(event, MarkReached)]
    first, pause, _ = received.done
    assert marks == [MarkReached("a", first.samples), MarkReached("b", first.samples + pause.samples)]


@pytest.mark.parametrize("audio_format", list(AudioFormat))
def test_a_pause_is_heard_in_every_format(audio_format: AudioFormat) -> None:
    audio = AudioSettings(audio_format, audio_format.default_rate_hz)
    received = spoken("One.[pause:2s]Two.", audio, TextSettings(normalize=True))
    received.check_gapless()
    (pause,) = (done for done in received.done if done.pause)
    rate_hz = audio.sample_rate_hz
    decoded = decode(received.data, audio)
    middle = decoded[pause.offset_samples + rate_hz // 2 : pause.offset_samples + pause.samples - rate_hz // 2]
    assert len(middle) >= rate_hz * 0.9
    assert np.abs(middle).max() < 0.01
    assert np.abs(decoded).max() > 0.05
    assert 2 * rate_hz <= pause.samples <= 2.2 * rate_hz, "formats with frames add their delay and padding"


def test_a_cancel_ends_a_pause() -> None:
    async def run() -> tuple[Received, Cancelled]:
        engine = FakeEngine(Script(token_s=0.01))
        received = Received()
        async with session(engine, text=SSML) as one:
            one.write("One.<break time='10s'/><break time='10s'/>Two.<mark name='never'/>")
            one.flush(1)
            await received.read_until(one, SegmentDone)
            await received.read_until(one, AudioChunk)
            await one.cancel()
            cancelled = await received.read_until(one, Cancelled)
            one.write("Three.")
            one.end()
            await received.read(one)
        assert engine.at_rest
        assert isinstance(cancelled, Cancelled)
        return received, cancelled

    received, cancelled = virtual_time(run())
    received.check_gapless()
    assert cancelled.segment_index == 1, "the pause was in progress"
    assert cancelled.dropped_flush_ids == (1,)
    assert cancelled.delivered_samples < 24_000 * 10
    assert received.started[-1].text == "Three."
    assert not [event for event in received.events if isinstance(event, MarkReached)]


def test_pauses_alone_are_audio() -> None:
    received = spoken("[pause:1s]", chosen=TextSettings(normalize=True))
    assert sum(chunk.samples for chunk in received.audio) == 24_000
    assert [type(event) for event in received.events if not isinstance(event, AudioChunk)] == [
        SegmentStarted,
        SegmentDone,
    ]


def test_the_chars_of_marks_and_pauses_do_not_wait_for_ever() -> None:
    text = "<speak>It costs <sub alias='five dollars'>$5</sub>.[pause:1s]Go.<mark name='x'/></speak>"
    received = spoken(text)
    assert received.done[-1].consumed_text_chars == len(text)


def test_a_segment_says_what_is_spoken_for_it() -> None:
    received = spoken("It costs $5.", chosen=TextSettings(normalize=True))
    (started,) = received.started
    assert (started.text, started.spoken_text) == ("It costs $5.", "It costs five dollars.")
    (span,) = started.spoken_spans
    assert started.text[span.written_start : span.written_end] == "$5"
    assert started.spoken_text[span.spoken_start : span.spoken_end] == "five dollars"
    plain = virtual_time(speak(FakeEngine(), "It costs five dollars."))
    assert received.data == plain.data, "the engine speaks the spoken form"
