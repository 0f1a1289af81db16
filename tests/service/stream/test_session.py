"""Sessions on scripted engines and virtual time: order, flush, cancel, back-pressure, nothing left behind."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY

from engines.errors import EngineBusy, EngineFailure, InvalidInput
from engines.fake import FakeEngine, Script
from engines.model_spec import SAMPLE_RATE_HZ, SAMPLES_PER_TOKEN
from engines.time_scale import scaled_samples
from mynah.client.events import AudioChunk, Cancelled, Flushed, SegmentDone, SegmentStarted
from service.audio.formats import AudioFormat, AudioSettings
from service.errors import ResourceExhausted
from service.stream.settings import TextSettings, UnspeakableText
from tests.service.stream.sessions import Received, now_s, session, speak
from tests.virtual_time import virtual_time

THREE = "First there was one sentence. Then there was a second one. And a third, to end it."
SLOW = Script(token_s=0.01, decode_s=0.1)


def test_segments_come_in_order_and_declare_exactly_their_audio():
    engine = FakeEngine(SLOW)
    received = virtual_time(speak(engine, THREE))
    assert (
        [event.segment_index for event in received.started]
        == [done.segment_index for done in received.done]
        == [0, 1, 2]
    )
    assert " ".join(event.text for event in received.started) == THREE
    received.check_gapless()
    assert sum(chunk.samples for chunk in received.audio) == engine.made_samples
    assert engine.at_rest


def test_segments_fit_an_engine_that_takes_only_short_ones():
    engine = FakeEngine()
    engine.info = replace(engine.info, limits=replace(engine.info.limits, max_text_chars_per_segment=30))
    received = virtual_time(speak(engine, THREE.replace(".", ",")))
    assert " ".join(event.text for event in received.started) == THREE.replace(".", ",")
    assert max(len(event.text) for event in received.started) <= 30


def test_text_in_fragments_is_spoken_like_text_at_once():
    async def in_fragments() -> Received:
        async with session(FakeEngine()) as one:
            for start in range(0, len(THREE), 3):
                one.write(THREE[start : start + 3])
            one.end()
            return await Received().read(one)

    assert virtual_time(in_fragments()).data == virtual_time(speak(FakeEngine(), THREE)).data


def test_a_seed_repeats_and_concurrent_streams_do_not_touch_each_other():
    async def together() -> list[bytes]:
        engine = FakeEngine(SLOW)
        received = await asyncio.gather(*(speak(engine, THREE, seed=seed) for seed in (1, 2, 1)))
        return [one.data for one in received]

    first, second, again = virtual_time(together())
    assert first == again == virtual_time(speak(FakeEngine(SLOW), THREE, seed=1)).data
    assert first != second


def test_a_sentence_is_spoken_before_the_next_one_is_written():
    async def conversation() -> None:
        async with session(FakeEngine(SLOW)) as one:
            one.write("This is complete. Now this is n")
            received = Received()
            await received.read_until(one, SegmentDone)
            assert [event.text for event in received.started] == ["This is complete."]

    virtual_time(conversation())


def test_the_next_segment_is_prepared_while_one_is_spoken():
    async def conversation() -> int:
        engine = FakeEngine(SLOW)
        async with session(engine) as one:
            (stream,) = engine.streams
            one.write(THREE)
            one.end()
            await Received().read(one)
            return stream.prepared_hits

    assert virtual_time(conversation()) == 2


def test_flushed_follows_the_last_audio_of_its_text():
    async def conversation() -> Received:
        async with session(FakeEngine(SLOW)) as one:
            one.write("One thing")
            one.flush(3)
            one.write("Another thing. And more")
            one.flush(8)
            one.end()
            return await Received().read(one)

    received = virtual_time(conversation())
    kinds = [type(event) for event in received.events if not isinstance(event, AudioChunk)]
    assert kinds == [
        SegmentStarted,
        SegmentDone,
        Flushed,
        SegmentStarted,
        SegmentDone,
        SegmentStarted,
        SegmentDone,
        Flushed,
    ]
    assert received.flushed == [3, 8]
    ends = [event.offset_samples for event in received.events if isinstance(event, Flushed)]
    assert ends == [received.done[0].samples, sum(done.samples for done in received.done)]


@pytest.mark.parametrize("text", ["", "   ", "\n \t"])
def test_flushing_nothing_is_answered_at_once(text: str):
    async def conversation() -> None:
        async with session(FakeEngine(SLOW)) as one:
            one.write(text)
            one.flush(1)
            assert await one.next_event() == Flushed(1, 0)
            assert now_s() == 0

    virtual_time(conversation())


@pytest.mark.parametrize(
    ("flush_id", "reason"), [(0, INVALID := "FLUSH_ID_INVALID"), (2**63, INVALID), (5, "FLUSH_ID_REUSED")]
)
def test_a_flush_id_is_positive_and_rises(flush_id: int, reason: str):
    async def conversation() -> None:
        async with session(FakeEngine()) as one:
            one.flush(5)
            with pytest.raises(InvalidInput) as raised:
                one.flush(flush_id)
            assert raised.value.reason == reason

    virtual_time(conversation())


def test_waiting_flushes_are_bounded():
    async def conversation() -> None:
        async with session(FakeEngine(SLOW), max_pending_flushes=3) as one:
            for flush_id in (1, 2, 3):
                one.flush(flush_id)
            with pytest.raises(ResourceExhausted) as raised:
                one.flush(4)
            assert (raised.value.reason, raised.value.value) == ("FLUSH_BACKLOG_FULL", "3")
            received = Received()
            for flush_id in range(4, 10):  # each that is answered makes room for one
                await received.read_until(one, Flushed)
                await asyncio.sleep(0)
                one.flush(flush_id)

    virtual_time(conversation())


def test_after_cancelled_no_older_audio_follows_and_the_stream_goes_on():
    async def conversation() -> tuple[Received, Received, FakeEngine]:
        engine = FakeEngine(SLOW)
        async with session(engine) as one:
            one.write(THREE)
            one.flush(1)
            before = Received()
            await before.read_until(one, AudioChunk)
            await asyncio.sleep(0.3)  # more is made and not read
            await one.cancel()
            assert engine.working == 0
            assert not engine.streams
            one.write("Something new.")
            one.end()
            return before, await Received(before.events[:]).read(one), engine

    before, received, engine = virtual_time(conversation())
    cancelled = received.cancelled[0]
    assert cancelled.delivered_samples == sum(chunk.samples for chunk in before.audio)
    assert cancelled.made_samples > cancelled.delivered_samples
    assert cancelled.dropped_flush_ids == (1,)
    assert cancelled.segment_index == 0
    received.check_gapless()
    after = received.events[received.events.index(cancelled) + 1 :]
    assert {event.segment_index for event in after if isinstance(event, AudioChunk)} == {3}
    assert [event.text for event in after if isinstance(event, SegmentStarted)] == ["Something new."]
    assert engine.at_rest
    assert engine.cancelled_segments == 1


def test_cancelled_between_two_segments_names_none():
    async def conversation() -> None:
        async with session(FakeEngine(SLOW)) as one:
            one.write("This is complete. Now this is n")
            await Received().read_until(one, SegmentDone)
            await one.cancel()
            answer = await one.next_event()
            assert isinstance(answer, Cancelled)
            assert answer.segment_index is None

    virtual_time(conversation())


@pytest.mark.parametrize("rate_hz", [8_000, 44_100])
def test_nothing_of_the_old_is_in_the_new_after_a_cancel_at_another_rate(rate_hz: int):
    audio = AudioSettings(sample_rate_hz=rate_hz)

    async def conversation() -> bytes:
        async with session(FakeEngine(SLOW), audio) as one:
            one.write("This is dropped half way. And this unheard.")
            await Received().read_until(one, AudioChunk)
            await one.cancel()
            await one.next_event()
            one.write("New.")
            one.end()
            return (await Received().read(one)).data

    assert virtual_time(conversation()) == virtual_time(speak(FakeEngine(), "New.", audio)).data


def test_cancelling_silence_is_answered_too():
    async def conversation() -> Received:
        async with session(FakeEngine()) as one:
            one.write("An unfinished thou")
            await one.cancel()
            await one.cancel()
            one.end()
            return await Received().read(one)

    received = virtual_time(conversation())
    assert received.events == [Cancelled(0, 0, None, (), 18)] * 2


def test_cancel_reaches_a_session_that_waits_for_its_reader():
    async def conversation() -> None:
        engine = FakeEngine(Script())
        async with session(engine, send_queue_events=2) as one:
            one.write(THREE)
            one.flush(1)
            await asyncio.sleep(1)
            made = engine.made_samples
            await one.cancel()
            one.end()
            received = await Received().read(one)
            assert received.events == [Cancelled(made, 0, None, (1,), len(THREE))]
            assert engine.at_rest

    virtual_time(conversation())


def test_a_flush_that_was_answered_but_not_read_counts_as_dropped():
    async def conversation() -> None:
        async with session(FakeEngine()) as one:
            one.flush(1)
            one.flush(2)
            await asyncio.sleep(1)
            await one.next_event()
            await one.cancel()
            answer = await one.next_event()
            assert isinstance(answer, Cancelled)
            assert answer.dropped_flush_ids == (2,)

    virtual_time(conversation())


def test_a_reader_that_does_not_read_stops_the_engine():
    async def conversation() -> None:
        engine = FakeEngine(Script(first_hop_tokens=10, hop_tokens=10))
        async with session(engine, send_queue_events=4) as one:
            one.write("x" * 240 + ". ")
            one.write("y" * 240 + ". ")
            await asyncio.sleep(1000)
            # three chunks beside the start of the segment, and one more in the speaker's hand
            assert engine.made_samples == 4 * 10 * SAMPLES_PER_TOKEN
            one.end()
            received = await Received().read(one)
            received.check_gapless()
            assert engine.made_samples == sum(chunk.samples for chunk in received.audio)

    virtual_time(conversation())


def test_too_much_waiting_text_is_refused_and_nothing_of_it_is_taken():
    async def conversation() -> None:
        async with session(FakeEngine(SLOW), max_pending_text_chars=60) as one:
            one.write("One short sentence. N")
            with pytest.raises(ResourceExhausted) as raised:
                one.write("z" * 60)
            assert raised.value.reason == "TEXT_BACKLOG_FULL"
            assert raised.value.allowed == "at most 60 chars waiting"
            assert str(raised.value).endswith("Send more when some have been spoken.")
            with pytest.raises(ResourceExhausted, match="Send it in smaller parts"):
                one.write("z" * 61)  # which no waiting makes fit
            received = Received()
            started = await received.read_until(one, SegmentStarted)
            assert isinstance(started, SegmentStarted)
            assert started.consumed_text_chars == 20
            one.write("z" * 59)  # there is room again

    virtual_time(conversation())


def test_blank_text_never_fills_the_room():
    async def conversation() -> None:
        async with session(FakeEngine(), max_pending_text_chars=60) as one:
            for _ in range(1000):
                one.write(" " * 10)
            one.end()
            assert (await Received().read(one)).events == []

    virtual_time(conversation())


def test_a_segment_with_nothing_to_speak_is_reported_as_skipped():
    received = virtual_time(speak(FakeEngine(), "Before. \n\n ... \n\n After."))
    assert [done.skipped for done in received.done] == [False, True, False]
    assert len(received.started) == 2
    received.check_gapless()


def test_a_skipped_segment_has_its_reason():
    received = virtual_time(speak(FakeEngine(), "Before.\n\n...\n\nПривет.\n\n🎉\n\nAfter."))
    reasons = ["unspecified", "nothing_to_speak", "script_unsupported", "nothing_to_speak", "unspecified"]
    assert [done.skip_reason for done in received.done] == reasons
    assert [done.end_reason for done in received.done] == ["spoken", *["skipped"] * 3, "spoken"]


def test_a_script_that_the_model_does_not_speak_ends_the_stream_by_option():
    async def conversation() -> Received:
        received = Received()
        async with session(FakeEngine(), text=TextSettings(unspeakable_text=UnspeakableText.REFUSE)) as one:
            one.write("Before.\n\n...\n\nПривет.\n\nAfter.")
            one.end()
            with pytest.raises(InvalidInput) as caught:
                await received.read(one)
            assert caught.value.reason == "SCRIPT_UNSUPPORTED"
        return received

    assert [done.end_reason for done in virtual_time(conversation()).done] == ["spoken", "skipped"]


def test_runaway_speech_is_reported_counted_and_logged_once(caplog: pytest.LogCaptureFixture):
    counted = REGISTRY.get_sample_value("mynah_segments_total", {"end": "runaway"}) or 0.0
    received = virtual_time(speak(FakeEngine(Script(runaway_from=1)), THREE))
    assert [done.end_reason for done in received.done] == ["spoken", "runaway", "runaway"]
    assert REGISTRY.get_sample_value("mynah_segments_total", {"end": "runaway"}) == counted + 2
    assert len([line for line in caplog.messages if "far longer" in line]) == 1


def test_markup_that_is_refused_is_an_error_of_the_write():
    async def conversation() -> None:
        async with session(FakeEngine()) as one:
            one.write("Hello <br")
            with pytest.raises(InvalidInput) as caught:
                one.write("eak/> there.")
            assert (caught.value.field, caught.value.reason) == ("text.content", "MARKUP_UNSUPPORTED")

    virtual_time(conversation())


def test_held_back_text_counts_as_waiting_and_a_flush_speaks_it():
    async def conversation() -> Received:
        async with session(FakeEngine(), text=TextSettings(drop_thinking=True)) as one:
            one.write("Now a <")
            one.flush(1)
            one.write("<think>secret")
            one.flush(2)
            one.write(" words</think>Done")
            one.end()
            return await Received().read(one)

    received = virtual_time(conversation())
    assert [event.text for event in received.started] == ["Now a <", "Done"]
    assert received.flushed == [1, 2]
    assert received.done[-1].consumed_text_chars == len("Now a <<think>secret words</think>Done")


def test_segments_fit_the_text_tokens_that_the_model_speaks_well():
    engine = FakeEngine()  # a character is a token
    engine.info = replace(engine.info, limits=replace(engine.info.limits, max_text_tokens_per_segment=20))
    received = virtual_time(speak(engine, "Not one stop in all of this text that goes on and on"))
    assert len(received.started) > 2
    assert all(len(event.text.replace(" ", "")) <= 20 for event in received.started)


@pytest.mark.parametrize("after_chunks", [0, 1, 2])
def test_an_engine_that_fails_ends_the_stream_after_what_was_made(after_chunks: int):
    engine = FakeEngine(Script(failure=EngineFailure("out of memory"), fail_segment=1, fail_after_chunks=after_chunks))

    async def conversation() -> Received:
        received = Received()
        async with session(engine) as one:
            one.write(THREE)
            one.end()
            with pytest.raises(EngineFailure):
                await received.read(one)
        return received

    received = virtual_time(conversation())
    assert len(received.done) == 1
    assert len([chunk for chunk in received.audio if chunk.segment_index == 1]) == after_chunks
    assert engine.at_rest


@pytest.mark.parametrize("failures", [1, 2])
@pytest.mark.parametrize("rate_hz", [24_000, 8_000])
def test_an_engine_that_fails_before_any_audio_is_tried_again(failures: int, rate_hz: int):
    audio = AudioSettings(sample_rate_hz=rate_hz)
    engine = FakeEngine(Script(failure=EngineFailure("the device was reset"), failures=failures))
    received = virtual_time(speak(engine, THREE, audio))
    unbroken = virtual_time(speak(FakeEngine(), THREE, audio))
    assert received.data == unbroken.data
    assert [type(event) for event in received.events] == [type(event) for event in unbroken.events]
    received.check_gapless()
    assert (engine.opened_streams, engine.at_rest) == (1 + failures, True)


def test_an_engine_that_goes_on_failing_is_tried_three_times():
    engine = FakeEngine(Script(failure=EngineFailure("no device")))
    with pytest.raises(EngineFailure):
        virtual_time(speak(engine, THREE))
    assert (engine.failures, engine.at_rest) == (3, True)


def test_after_any_audio_nothing_is_tried_again():
    engine = FakeEngine(Script(failure=EngineFailure("no device"), fail_after_chunks=1))
    with pytest.raises(EngineFailure):
        virtual_time(speak(engine, THREE))
    assert (engine.failures, engine.at_rest) == (1, True)


def test_a_cancel_during_another_try_frees_everything_before_it_is_answered():
    engine = FakeEngine(Script(failure=EngineFailure("the device was reset"), failures=1, close_s=0.2))

    async def conversation() -> None:
        async with session(engine) as one:
            one.write(THREE)
            await asyncio.sleep(0.1)  # the first stream is being closed
            assert engine.failures == 1
            await one.cancel()
            assert engine.at_rest
            one.write(THREE)
            one.end()
            assert len((await Received().read(one)).done) == 3

    virtual_time(conversation())
    assert engine.at_rest


def test_an_unforeseen_error_ends_the_stream_instead_of_hanging_it():
    engine = FakeEngine(Script(failure=ZeroDivisionError()))

    async def conversation() -> None:
        async with session(engine) as one:
            one.write(THREE)
            one.end()
            with pytest.raises(ZeroDivisionError):
                await Received().read(one)

    virtual_time(conversation())
    assert engine.at_rest


def test_a_full_engine_refuses_a_session_when_it_is_opened():
    async def conversation() -> None:
        engine = FakeEngine(max_streams=1)
        async with session(engine):
            with pytest.raises(EngineBusy):
                await session(engine).__aenter__()

    virtual_time(conversation())


@pytest.mark.parametrize("at_s", [0.0, 0.05, 0.15, 0.25, 1.0])
def test_leaving_frees_everything_at_once(at_s: float):
    engine = FakeEngine(SLOW)

    async def conversation() -> None:
        async with session(engine) as one:
            one.write(THREE)
            await asyncio.sleep(at_s)
        assert engine.at_rest
        assert now_s() == at_s
        await asyncio.sleep(10)

    virtual_time(conversation())
    assert engine.done_segments + engine.cancelled_segments <= 3


def test_a_cancelled_owner_frees_everything_too():
    engine = FakeEngine(Script(token_s=0.01, decode_s=0.1, close_s=0.02))

    async def owner() -> None:
        async with session(engine) as one:
            one.write(THREE)
            await Received().read(one)

    async def conversation() -> None:
        task = asyncio.create_task(owner())
        await asyncio.sleep(0.25)
        assert engine.working == 1
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert engine.at_rest

    virtual_time(conversation())


def test_the_first_chunk_that_is_delivered_carries_the_wav_header():
    wav = AudioSettings(AudioFormat.WAV, 16_000)

    async def conversation() -> Received:
        async with session(FakeEngine(), wav) as one:
            one.write("Never heard.")
            one.flush(1)
            await asyncio.sleep(1)
            await one.cancel()
            one.write("Heard at last.")
            one.end()
            return await Received().read(one)

    received = virtual_time(conversation())
    assert received.data.startswith(b"RIFF")
    assert received.data.count(b"RIFF") == 1
    assert len(received.data) == 44 + 2 * sum(chunk.samples for chunk in received.audio)


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 48_000])
def test_at_other_rates_the_timeline_is_as_exact(rate_hz: int):
    engine = FakeEngine(SLOW)
    received = virtual_time(speak(engine, THREE, AudioSettings(sample_rate_hz=rate_hz)))
    received.check_gapless()
    assert sum(chunk.samples for chunk in received.audio) == engine.made_samples * rate_hz // 24_000


@pytest.mark.parametrize("speed", [0.5, 0.9, 1.5, 2.0])
@pytest.mark.parametrize(
    "audio",
    [
        AudioSettings(),
        AudioSettings(AudioFormat.PCM_F32LE, 16_000),
        AudioSettings(AudioFormat.MULAW, 8000),
        AudioSettings(AudioFormat.OGG_OPUS, 48_000),
        AudioSettings(AudioFormat.MP3, 44_100),
    ],
    ids=lambda audio: f"{audio.audio_format.value}-{audio.sample_rate_hz}",
)
def test_every_format_and_rate_counts_what_the_speed_makes_of_the_speech(speed: float, audio: AudioSettings):
    plain = virtual_time(speak(FakeEngine(SLOW), THREE, AudioSettings()))
    engine = FakeEngine(SLOW)
    received = virtual_time(speak(engine, THREE, audio, speed=speed))
    received.check_gapless()
    assert [event.speed for event in received.started] == [speed] * 3
    native = [scaled_samples(done.samples, speed) for done in plain.done]
    assert engine.made_samples == sum(native)
    if not audio.audio_format.takes_time:  # those with frames pad every segment
        ends = [round(sum(native[: n + 1]) * audio.sample_rate_hz / SAMPLE_RATE_HZ) for n in range(3)]
        assert [done.offset_samples + done.samples for done in received.done] == ends
    assert [done.speech_tokens for done in received.done] == [done.speech_tokens for done in plain.done]


def test_a_new_speed_holds_for_every_segment_that_has_not_begun():
    async def conversation() -> Received:
        async with session(FakeEngine(SLOW), send_queue_events=1) as one:
            received = Received()
            one.write(THREE)
            one.end()
            await received.read_until(one, AudioChunk)
            one.set_speed(2.0)  # the first segment is being spoken, and nothing of the second is made
            await received.read(one)
            return received

    received = virtual_time(conversation())
    received.check_gapless()
    assert [event.speed for event in received.started] == [1.0, 2.0, 2.0]
    plain = virtual_time(speak(FakeEngine(SLOW), THREE))
    lengths = [done.samples for done in plain.done]
    assert [done.samples for done in received.done] == [lengths[0], lengths[1] // 2, lengths[2] // 2]


def test_a_new_speed_keeps_the_segment_that_was_prepared():
    async def conversation() -> int:
        engine = FakeEngine(SLOW)
        async with session(engine, send_queue_events=1) as one:
            (stream,) = engine.streams
            one.write(THREE)
            one.end()
            received = Received()
            await received.read_until(one, AudioChunk)
            one.set_speed(1.5)
            await received.read(one)
            return stream.prepared_hits

    assert virtual_time(conversation()) == 2


def test_a_cancel_counts_the_samples_at_their_speed_and_the_speed_stays():
    async def conversation() -> tuple[Cancelled, Received]:
        engine = FakeEngine(SLOW)
        async with session(engine, speed=2.0) as one:
            received = Received()
            one.write(THREE)
            await received.read_until(one, AudioChunk)
            await one.cancel()
            answer = await received.read_until(one, Cancelled)
            one.write("Another sentence.")
            one.end()
            await received.read(one)
            assert isinstance(answer, Cancelled)
            return answer, received

    answer, received = virtual_time(conversation())
    received.check_gapless()
    assert answer.delivered_samples == received.audio[0].samples
    assert [event.speed for event in received.started] == [2.0, 2.0]
    assert received.done[-1].samples == len("Another sentence.") * SAMPLES_PER_TOKEN // 2


@pytest.mark.parametrize("speed", [0.0, 0.4, 2.5, float("nan")])
def test_a_speed_out_of_the_range_changes_nothing(speed: float):
    async def conversation() -> Received:
        async with session(FakeEngine()) as one:
            with pytest.raises(InvalidInput, match=r"from 0\.5 to 2") as raised:
                one.set_speed(speed)
            assert (raised.value.field, raised.value.reason) == ("set_speed.speed", "SPEED_OUT_OF_RANGE")
            one.write("Still here.")
            one.end()
            return await Received().read(one)

    assert [event.speed for event in virtual_time(conversation()).started] == [1.0]
