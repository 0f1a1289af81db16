"""StreamSpeech and Synthesize over a real socket: order, cancel, half-close, vanished clients, slow readers, limits."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import numpy as np
import pytest

import mynah
from engines.fake import FakeEngine, Script, fake_voice, tone
from mynah.client.events import Cancelled, Flushed, SegmentDone, SegmentStarted
from mynah.v1 import speech_pb2
from service.audio.codecs import pcm_s16le
from service.stream.segmenter import MAX_SEGMENT_CHARS
from service.voices.ids import DEFAULT_VOICE_ID
from tests.service.serving import CANCEL, converse, flush, opening, serving, text

TWO = "First there was one sentence. Then there was a second one."
LONG = "This sentence is said again and again, until nobody listens. " * 100
SLOW = Script(token_s=0.002, decode_s=0.01)


def kinds(answers: list[speech_pb2.StreamSpeechResponse]) -> list[str]:
    """The events in order, audio chunks in a row as one."""
    names = [str(answer.WhichOneof("event")) for answer in answers]
    return [name for name, before in zip(names, [None, *names], strict=False) if name != "audio" or before != "audio"]


async def test_a_streams_events_come_in_the_order_of_the_contract():
    async with serving() as at:
        answers = await converse(at, opening(), text(TWO), flush(1), text("And more"))
        segment = ["segment_started", "audio", "segment_done"]
        assert kinds(answers) == ["opened", *segment, *segment, "flushed", *segment]
        await at.settled()


async def test_opened_holds_settings_limits_and_model():
    async with serving(max_pending_text_chars=5000, idle_timeout_s=77.0) as at:
        async with at.client.stream(audio_format="wav", sampling=mynah.Sampling(temperature=0.5, seed=3)) as stream:
            opened = stream.opened
        assert opened.settings == mynah.SpeechSettings(
            voice=DEFAULT_VOICE_ID,
            audio_format="wav",
            sample_rate_hz=24_000,
            sampling=mynah.Sampling(0.5, 1000, 0.95, 1.2, 3, 1000),
            text=mynah.TextSettings("refuse", "skip", False, normalize=True, emoji="drop", paragraph_pause_s=0.0),
            speed=1.0,
            first_segment="sentence",  # because of the seed
            schedule="balanced",
            word_times=False,
            word_guard=False,
            continuity=False,
            language="en",
            model="fake",
        )
        assert (opened.model, opened.notice) == ("fake", at.engine.info.notice)
        assert (opened.limits.max_pending_text_chars, opened.limits.idle_timeout_s) == (5000, 77.0)
        assert opened.limits == (await at.client.info()).limits
        limits = at.engine.info.limits
        assert opened.limits.max_segment_text_tokens == limits.max_text_tokens_per_segment
        assert opened.limits.split_segment_text_chars == MAX_SEGMENT_CHARS
        assert opened.tags == at.engine.info.tags


async def test_an_explicit_zero_is_not_a_default():
    async with serving() as at:
        zeros = mynah.Sampling(temperature=0.0, top_k=0, seed=0)
        async with at.client.stream(sampling=zeros) as stream:
            drawn = stream.opened.settings.sampling
    assert (drawn.temperature, drawn.top_k, drawn.seed) == (0.0, 0, 0)


async def test_an_unset_seed_is_drawn_reported_and_repeatable():
    async with serving() as at:
        seeds, spoken = [], []
        for _ in range(2):
            async with at.client.stream() as stream:
                seeds.append(stream.opened.settings.sampling.seed)
        for seed in (seeds[0], seeds[0], seeds[1]):
            sampling = mynah.Sampling(seed=seed)
            spoken.append(b"".join([chunk.data async for chunk in at.client.synthesize(TWO, sampling=sampling)]))
        assert seeds[0] != seeds[1]
        assert all(seed is not None and 0 <= seed < 2**53 for seed in seeds)
        assert spoken[0] == spoken[1] != spoken[2]


async def test_the_samples_are_the_engines():
    async with serving() as at:
        sampling = mynah.Sampling(seed=5)
        data = b"".join([chunk.data async for chunk in at.client.synthesize("Hello there.", sampling=sampling)])
    assert data == pcm_s16le(tone("Hello there.", fake_voice("default"), 5, 12 * 960))


async def test_chunks_declare_what_they_hold():
    async with serving(SLOW) as at, at.client.stream(audio_format="pcm_f32le", sample_rate_hz=16_000) as stream:
        await stream.send(TWO)
        await stream.end()
        position, per_segment = 0, {}
        async for event in stream.events():
            if isinstance(event, mynah.AudioChunk):
                assert event.offset_samples == position
                assert len(event.data) == 4 * event.samples
                position += event.samples
                per_segment[event.segment_index] = per_segment.get(event.segment_index, 0) + event.samples
            if isinstance(event, SegmentDone):
                assert event.samples == per_segment[event.segment_index]
                assert event.samples == event.speech_tokens * 640
        assert len(per_segment) == 2


async def test_chunks_carry_their_windows_figures():
    async with serving(SLOW) as at:
        chunks = [chunk async for chunk in at.client.synthesize("Twelve chars and more after them.")]
        windows = [chunk.window for chunk in chunks if chunk.window]
        assert [window.window_index for window in windows] == [0, 1]
        assert [window.new_speech_tokens for window in windows] == [10, 23]
        assert [window.made_speech_tokens for window in windows] == [10, 33]
        assert {window.decode_s for window in windows} == {SLOW.decode_s}
        resampled = [chunk async for chunk in at.client.synthesize("Hello there.", sample_rate_hz=8_000)]
        assert [chunk.window is not None for chunk in resampled] == [True, True, False]


async def test_cancel_over_the_wire_and_the_stream_goes_on():
    async with serving(SLOW) as at, at.client.stream() as stream:
        await stream.send(LONG)
        flush_id = await stream.flush()
        received = 0
        async for event in stream.events():
            if isinstance(event, mynah.AudioChunk):
                received += event.samples
                break
        await stream.cancel()
        await stream.send("New words. ")
        await stream.end()
        after = [event async for event in stream.events()]
        cancelled = next(event for event in after if isinstance(event, Cancelled))
        position = after.index(cancelled)
        assert not any(isinstance(event, mynah.AudioChunk) for event in after[:position])
        assert cancelled.delivered_samples >= received
        assert cancelled.made_samples >= cancelled.delivered_samples
        assert cancelled.dropped_flush_ids == (flush_id,)
        assert cancelled.consumed_text_chars == len(LONG)
        new = [event for event in after[position:] if isinstance(event, mynah.AudioChunk)]
        assert new[0].offset_samples == cancelled.delivered_samples
        started = [event for event in after[position:] if isinstance(event, SegmentStarted)]
        assert [event.text for event in started] == ["New words."]
        await at.settled()


async def test_cancels_without_a_reason_are_answered():
    async with serving() as at:
        answers = await converse(at, opening(), CANCEL, CANCEL, flush(1), CANCEL)
        assert kinds(answers).count("cancelled") == 3
        dropped = [number for answer in answers for number in answer.cancelled.dropped_flush_ids]
        answered = [answer.flushed.flush_id for answer in answers if answer.HasField("flushed")]
        assert dropped + answered == [1]


async def test_half_close_speaks_the_rest():
    async with serving() as at:
        answers = await converse(at, opening(), text("No end of a sentence"))
        assert kinds(answers)[-1] == "segment_done"
        assert answers[-1].segment_done.speech_token_count == 20


async def test_half_close_right_after_opening_is_a_good_end():
    async with serving() as at:
        assert kinds(await converse(at, opening())) == ["opened"]


@pytest.mark.parametrize("chunks", [0, 1, 3])
async def test_a_client_that_vanishes_leaves_nothing(chunks: int):
    async with serving(SLOW) as at:
        async with at.client.stream() as stream:
            await stream.send(LONG)
            received = 0
            while received < chunks:
                async for _ in stream:
                    received += 1
                    break
        await at.settled()
        made = at.engine.made_samples
        await at.check_serves()
        assert at.engine.made_samples - made == 12 * 960


async def test_a_client_that_vanishes_while_it_does_not_read_leaves_nothing(caplog: pytest.LogCaptureFixture):
    async with serving() as at:
        async with at.client.stream() as stream:
            await stream.send(LONG)
            await engine_waits(at.engine)
        await at.settled()
        assert at.engine.cancelled_segments == 1
    assert not [record for record in caplog.records if record.levelname == "ERROR"], "leaving is no fault"


async def test_a_disconnect_after_a_mistake_is_not_an_error_of_the_server(
    caplog: pytest.LogCaptureFixture,
):
    async with serving() as at:
        for _ in range(50):
            call = at.speech.StreamSpeech()
            await call.write(text("A mistake."))
            call.cancel()
        await at.check_serves()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_leaving_synthesize_early_stops_the_work():
    async with serving(SLOW) as at:
        audio = at.client.synthesize(LONG)
        await anext(audio)
        await audio.aclose()
        await at.settled()
        assert at.engine.cancelled_segments == 1


async def engine_waits(engine: FakeEngine) -> None:
    """Waits until the engine has made nothing more for a while: all queues up to the reader are full."""
    with suppress(TimeoutError):
        while True:
            engine.progress.clear()
            async with asyncio.timeout(0.1):
                await engine.progress.wait()


async def test_a_slow_reader_slows_itself_only_and_bounds_what_is_made():
    async with serving(send_queue_events=4) as at:
        async with at.client.stream() as slow:
            await slow.send(LONG)
            await engine_waits(at.engine)
            made_s = at.engine.made_samples / 24_000
            assert made_s < 10, "queue and window hold a few seconds, the text would be minutes"
            quick = sum([chunk.samples async for chunk in at.client.synthesize(LONG)])
            assert quick == len(LONG.strip().replace(". ", ".")) * 960
            assert at.engine.made_samples / 24_000 - made_s == quick / 24_000
            await slow.end()
            assert sum([chunk.samples async for chunk in slow]) == quick
        await at.settled()


async def test_a_reader_that_stalls_loses_its_stream_and_its_slot():
    async with serving(stall_timeout_s=0.2, max_streams=1) as at, at.client.stream() as stream:
        await stream.send(LONG)
        await at.settled()  # the slot is free before the client knows
        await at.check_serves()
        with pytest.raises(mynah.TimedOut) as raised:
            async for _ in stream:
                pass
        assert (raised.value.reason, raised.value.allowed) == ("READER_STALLED", "0.2 s")


@pytest.mark.parametrize("first", ["", "Some words without an end"])
async def test_a_stream_on_which_nothing_happens_is_ended(first: str):
    async with serving(idle_timeout_s=0.1) as at, at.client.stream() as stream:
        await stream.send(first)
        with pytest.raises(mynah.TimedOut) as raised:
            async for _ in stream:
                pass
        assert (raised.value.reason, raised.value.allowed) == ("STREAM_IDLE", "0.1 s")
        await at.settled()


async def test_a_call_that_never_opens_is_ended():
    async with serving(idle_timeout_s=0.1) as at:
        call = at.speech.StreamSpeech()
        assert (await call.code()).name == "DEADLINE_EXCEEDED"


async def test_speaking_is_not_idling_and_idling_begins_after_it():
    async with serving(Script(token_s=0.02), idle_timeout_s=0.5) as at, at.client.stream() as stream:
        await stream.send("Thirty letters take a while, yes.")
        await stream.flush()
        events = []
        async for event in stream.events():
            events.append(event)
            if isinstance(event, Flushed):
                break
        assert sum(event.samples for event in events if isinstance(event, SegmentDone)) == 33 * 960
        silent_since = asyncio.get_running_loop().time()
        with pytest.raises(mynah.TimedOut):
            await anext(aiter(stream))
        assert asyncio.get_running_loop().time() - silent_since > 0.4


async def test_many_streams_at_once_do_not_mix():
    async with serving(SLOW, max_streams=8) as at:

        async def speak(seed: int) -> bytes:
            sampling = mynah.Sampling(seed=seed)
            return b"".join([chunk.data async for chunk in at.client.synthesize(TWO, sampling=sampling)])

        together = await asyncio.gather(*(speak(seed) for seed in range(8)))
        alone = [await speak(seed) for seed in range(8)]
        assert together == alone
        assert len(set(together)) == 8


async def test_a_stream_keeps_its_voice_when_the_voice_is_deleted():
    async with serving() as at:
        voice = await at.client.voices.create("Anna", b"a" * 5000, consent=True)
        async with at.client.stream(voice=voice.voice_id, sampling=mynah.Sampling(seed=1)) as stream:
            await at.client.voices.delete(voice.voice_id)
            await stream.send("Still me.")
            await stream.end()
            data = b"".join([chunk.data async for chunk in stream])
        assert data == pcm_s16le(tone("Still me.", fake_voice("Anna", b"a" * 5000), 1, 9 * 960))


async def test_levels_survive_every_format():
    async with serving() as at:
        loudest = {}
        for audio_format, dtype in (("pcm_s16le", "<i2"), ("pcm_f32le", "<f4"), ("wav", "<i2")):
            chunks = [chunk.data async for chunk in at.client.synthesize(TWO, audio_format=audio_format)]
            data = b"".join(chunks)[44 if audio_format == "wav" else 0 :]
            scale = 1.0 if dtype == "<f4" else 32767.0
            loudest[audio_format] = float(np.abs(np.frombuffer(data, dtype)).max()) / scale
    assert all(level == pytest.approx(0.5, abs=1e-3) for level in loudest.values())


async def test_text_is_never_logged(caplog: pytest.LogCaptureFixture):
    caplog.set_level("DEBUG")
    async with serving() as at:
        await converse(at, opening(), text("Confidential words."), flush(1), CANCEL)
        with pytest.raises(mynah.InvalidArgument):
            _ = [chunk async for chunk in at.client.synthesize("confidential!", sampling=mynah.Sampling(top_p=7))]
    assert "stream ended" in caplog.text
    assert "SAMPLING_OUT_OF_RANGE" in caplog.text
    assert "onfidential" not in caplog.text


async def test_only_a_seed_asks_for_repeatable_bytes():
    async with serving() as at:
        for seed in (None, 7):
            async with at.client.stream(sampling=mynah.Sampling(seed=seed)):
                (stream,) = at.engine.streams
                assert stream.sampling.repeatable == (seed is not None)


async def test_the_servers_text_settings_hold_where_the_client_does_not_choose():
    options = {"markup": "strip", "unspeakable_text": "refuse", "drop_thinking": True}
    options |= {"normalize": False, "emoji": "name", "paragraph_pause_s": 1.0}
    async with serving(**options) as at:
        async with at.client.stream() as stream:
            assert stream.opened.settings.text == mynah.TextSettings(**options)
            await stream.send("<think>Nothing of this.</think><speak>Yes.</speak>")
            await stream.end()
            events = [event async for event in stream.events()]
        assert [event.text.strip() for event in events if isinstance(event, mynah.SegmentStarted)] == ["Yes."]
        chosen = mynah.TextSettings("literal", "skip", False, normalize=True, emoji="drop", paragraph_pause_s=0.0)
        async with at.client.stream(text_settings=chosen) as stream:
            assert stream.opened.settings.text == chosen


async def test_a_seed_gets_the_schedule_that_the_load_asks_for_and_is_told_it():
    async with serving(Script(schedule="throughput")) as at:
        async with at.client.stream(sampling=mynah.Sampling(seed=7)) as stream:
            assert stream.opened.schedule == stream.opened.settings.schedule == "throughput"
            (engine_stream,) = at.engine.streams
            assert (engine_stream.sampling.schedule, engine_stream.sampling.repeatable) == ("throughput", True)
        async with at.client.stream() as stream:
            assert stream.opened.schedule is stream.opened.settings.schedule is None
            (engine_stream,) = at.engine.streams
            assert not engine_stream.sampling.repeatable, "its windows follow the load"


@pytest.mark.parametrize("sampling", [mynah.Sampling(), mynah.Sampling(seed=7)], ids=["no seed", "a seed"])
async def test_a_named_schedule_is_kept_whatever_the_load(sampling: mynah.Sampling):
    async with (
        serving(Script(schedule="throughput")) as at,
        at.client.stream(sampling=sampling, schedule="lowest_latency") as stream,
    ):
        assert stream.opened.schedule == "lowest_latency"
        (engine_stream,) = at.engine.streams
        assert (engine_stream.sampling.schedule, engine_stream.sampling.repeatable) == ("lowest_latency", True)


async def test_an_unknown_schedule_is_refused():
    async with serving() as at:
        with pytest.raises(mynah.InvalidArgument) as raised:
            async with at.client.stream(schedule="fast"):  # type: ignore[arg-type]
                pass
        error = raised.value
        assert (error.reason, error.field) == ("SCHEDULE_UNKNOWN", "settings.schedule")
        assert error.allowed == "lowest_latency, balanced, throughput, crowd, offline"
        await at.check_serves()
