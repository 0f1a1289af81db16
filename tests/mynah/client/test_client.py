"""The client: opening, sending, reading and leaving in any order, and what happens to tasks that are cancelled."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress

import grpc.aio
import pytest

import mynah
from engines.errors import EngineFailure
from engines.fake import Script
from mynah.client.events import Cancelled, Flushed, SegmentStarted
from mynah.client.settings import AUDIO_FORMATS
from tests.service.serving import serving

SLOW = Script(token_s=0.0005, decode_s=0.002)
BROKEN = Script(failure=EngineFailure("scripted"), fail_after_chunks=1)
LONG = "This sentence is said again and again, until the stream is cancelled. " * 20


async def test_one_task_sends_and_then_reads():
    async with serving() as at, at.client.stream() as stream:
        await stream.send("Hello ")
        await stream.send("there.")
        await stream.end()
        assert sum([chunk.samples async for chunk in stream]) == 12 * 960


async def test_one_task_writes_while_another_reads():
    async with serving(SLOW) as at, at.client.stream() as stream:

        async def write() -> None:
            for word in LONG.split(" "):
                await stream.send(word + " ")
                await asyncio.sleep(0)
            await stream.end()

        writing = asyncio.create_task(write())
        samples = sum([chunk.samples async for chunk in stream])
        await writing
        assert samples == at.engine.made_samples


async def test_flush_ids_rise_and_come_back():
    async with serving() as at, at.client.stream() as stream:
        sent = []
        for word in ("one", "two", "three"):
            await stream.send(word)
            sent.append(await stream.flush())
        await stream.end()
        answered = [event.flush_id async for event in stream.events() if isinstance(event, Flushed)]
        assert answered == sent == sorted(set(sent))


async def test_reading_can_be_left_and_taken_up_again():
    async with serving(SLOW) as at, at.client.stream() as stream:
        await stream.send(LONG)
        await stream.end()
        samples = 0
        async for chunk in stream:
            samples += chunk.samples
            break
        async for event in stream.events():
            samples += getattr(event, "samples", 0) if isinstance(event, mynah.AudioChunk) else 0
            if isinstance(event, SegmentStarted):
                break
        async for chunk in stream:
            samples += chunk.samples
        assert samples == at.engine.made_samples


async def test_cancelling_the_task_that_reads_does_not_end_the_stream():
    async with serving(Script(token_s=0.005)) as at, at.client.stream() as stream:
        chunks: list[mynah.AudioChunk] = []

        async def listen() -> None:
            async for chunk in stream:
                chunks.append(chunk)

        await stream.send("All of this is going to be heard.")
        await stream.end()
        for _ in range(4):
            listening = asyncio.create_task(listen())
            await asyncio.sleep(0.02)
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening
        await listen()
        assert sum(chunk.samples for chunk in chunks) == 33 * 960
        assert [chunk.sequence_number for chunk in chunks] == list(range(len(chunks)))


async def test_cancelling_a_task_that_sends_does_not_end_the_stream():
    async with serving() as at, at.client.stream() as stream:
        sending = asyncio.create_task(stream.send("Sent all the same. "))
        await asyncio.sleep(0)
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
        await stream.send("And this.")
        await stream.end()
        texts = [event.text async for event in stream.events() if isinstance(event, SegmentStarted)]
        assert texts == ["Sent all the same.", "And this."]


async def test_after_cancel_older_audio_is_not_yielded_even_if_it_was_in_flight():
    async with serving() as at, at.client.stream() as stream:
        await stream.send(LONG)
        await anext(aiter(stream))
        await asyncio.sleep(0.1)  # more has arrived and was not read
        await stream.cancel()
        await stream.send("New.")
        await stream.flush()
        await stream.end()
        events = [event async for event in stream.events()]
        (cancelled,) = [event for event in events if isinstance(event, Cancelled)]
        audio = [event for event in events if isinstance(event, mynah.AudioChunk)]
        assert events.index(cancelled) < events.index(audio[0])
        assert sum(chunk.samples for chunk in audio) == 4 * 960
        assert audio[0].offset_samples == cancelled.delivered_samples


async def test_room_keeps_a_long_text_within_the_servers_limit():
    async with serving(SLOW, max_pending_text_chars=1000) as at, at.client.stream() as stream:
        text = LONG * 2
        pieces = [text[start : start + 60] for start in range(0, len(text), 60)]  # quicker sent than spoken
        max_pending = 0

        async def write() -> None:
            nonlocal max_pending
            for piece in pieces:
                await stream.room(len(piece))
                await stream.send(piece)
                max_pending = max(max_pending, stream.pending_chars)
            await stream.end()

        writing = asyncio.create_task(write())
        samples = sum([chunk.samples async for chunk in stream])
        await writing
        assert samples == at.engine.made_samples
        assert 900 < max_pending <= 1000
        assert stream.pending_chars == 0


async def test_room_refuses_pieces_above_its_maximum():
    async with serving(max_pending_text_chars=1000) as at, at.client.stream() as stream:
        with pytest.raises(mynah.WrongState) as raised:
            await stream.room(501)
        assert raised.value.reason == "TEXT_TOO_LONG"


async def test_waiting_for_room_ends_with_the_stream():
    async with serving(BROKEN, max_pending_text_chars=1000) as at, at.client.stream() as stream:
        await stream.send("Yes, this is one. " + "x" * 900)
        waiting = asyncio.create_task(stream.room(500))
        with pytest.raises(mynah.ServerError):
            _ = [chunk async for chunk in stream]
        await asyncio.wait_for(waiting, 1)
        with pytest.raises(mynah.ServerError) as raised:
            await stream.send("more")
        assert raised.value.reason == "ENGINE_FAILURE"


async def send_forever(stream: mynah.SpeechStream) -> None:
    while True:
        await stream.send("x" * 400)


async def test_a_sender_gets_the_reason_of_a_failed_stream():
    """Also if the send races with the server's error, where gRPC alone reports INTERNAL."""
    async with serving(Script(token_s=1000.0), max_pending_text_chars=1000) as at:
        for _ in range(50):
            await at.settled()
            async with at.client.stream() as stream:
                with pytest.raises(mynah.ServerBusy) as raised:
                    await send_forever(stream)
                assert raised.value.reason == "TEXT_BACKLOG_FULL"


async def test_nothing_can_be_sent_after_the_end():
    async with serving() as at, at.client.stream() as stream:
        await stream.end()
        await stream.end()
        for call in (stream.send("x"), stream.flush(), stream.cancel()):
            with pytest.raises(mynah.WrongState) as raised:
                await call
            assert raised.value.reason == "STREAM_ENDED"
        assert [event async for event in stream.events()] == []
        assert [event async for event in stream.events()] == []


async def test_a_stream_that_was_left_is_closed():
    async with serving(SLOW) as at:
        async with at.client.stream() as stream:
            await stream.send(LONG)
        for call in (anext(aiter(stream)), stream.send("x")):
            with pytest.raises(mynah.StreamCancelled) as raised:
                await call
            assert raised.value.reason == "STREAM_CLOSED"
        await at.settled()


async def test_a_stream_that_was_not_entered_says_so():
    async with serving() as at:
        stream = at.client.stream()
        with pytest.raises(mynah.WrongState) as raised:
            await stream.send("x")
        assert raised.value.reason == "STREAM_NOT_OPEN"


async def test_a_client_that_is_not_open_says_so():
    for call in (lambda c: c.stream(), lambda c: c.voices):
        with pytest.raises(mynah.WrongState, match="async with"):
            call(mynah.Client())
    with pytest.raises(mynah.WrongState):
        await mynah.Client().info()


async def test_an_unreachable_server_is_unavailable():
    async with serving() as at:
        address = at.address
    async with mynah.Client(address) as client:
        with pytest.raises(mynah.Unavailable) as raised:
            async with client.stream():
                pass
        assert raised.value.retryable
        with pytest.raises(mynah.Unavailable):
            await client.info()
        with pytest.raises(mynah.Unavailable):
            await client.voices.create("Anna", b"x", consent=True)


async def test_a_server_without_this_contract_is_unimplemented():
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with mynah.Client(f"127.0.0.1:{port}") as client:
        for _ in range(20):
            with pytest.raises(mynah.ServerError) as raised:
                async with client.stream():
                    pass
            assert raised.value.code == "UNIMPLEMENTED"
    await server.stop(0)


async def test_a_server_that_never_answers_times_out():
    silent = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    host, port = silent.sockets[0].getsockname()
    timeouts = mynah.Timeouts(connect_s=0.2, call_s=0.2)
    async with mynah.Client(f"{host}:{port}", timeouts=timeouts) as client:
        with pytest.raises(mynah.TimedOut) as raised:
            async with client.stream():
                pass
        assert raised.value.reason == "OPEN_TIMED_OUT"
        with pytest.raises(mynah.TimedOut):
            await client.info()
    silent.close()


@pytest.mark.parametrize("audio_format", ["mp4", ""])
async def test_the_client_refuses_an_unknown_format(audio_format: str):
    async with serving() as at:
        with pytest.raises(mynah.InvalidArgument) as raised:
            async with at.client.stream(audio_format=audio_format):  # type: ignore[arg-type]
                pass
        assert (raised.value.reason, raised.value.allowed) == ("AUDIO_FORMAT_UNKNOWN", ", ".join(AUDIO_FORMATS))


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        (mynah.Sampling(seed=-1), "seed"),
        (mynah.Sampling(seed=2**64), "seed"),
        (mynah.Sampling(top_k=2**31), "top_k"),
        (mynah.Sampling(max_speech_tokens=-(2**40)), "max_speech_tokens"),
        (mynah.Sampling(temperature="hot"), "temperature"),  # type: ignore[arg-type]
        (mynah.Sampling(min_p=10**400), "min_p"),
        (mynah.Sampling(top_k=10**5000), "top_k"),
    ],
)
async def test_the_client_refuses_a_value_that_cannot_be_sent(sampling: mynah.Sampling, field: str):
    async with serving() as at:
        with pytest.raises(mynah.InvalidArgument) as raised:
            async with at.client.stream(sampling=sampling):
                pass
        assert (raised.value.reason, raised.value.field) == ("VALUE_UNSENDABLE", field)
        await at.settled()


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("language", "\ud800"),
        ("language", 5),
        pytest.param("voice", "\ud800" * 5000, id="voice"),
        ("model", "\ud800"),
        ("cfg_weight", "strong"),
        pytest.param("exaggeration", 10**400, id="exaggeration"),
    ],
)
async def test_the_client_names_an_argument_that_cannot_be_sent_and_repeats_a_part_of_it(argument: str, value: object):
    async with serving() as at:
        with pytest.raises(mynah.InvalidArgument) as raised:
            async with at.client.stream(**{argument: value}):
                pass
        assert (raised.value.reason, raised.value.field) == ("VALUE_UNSENDABLE", argument)
        assert str(raised.value).startswith(f"{argument} is ")
        assert len(raised.value.value) <= 80
        await at.settled()


async def test_text_that_is_not_unicode_is_refused_and_not_counted():
    async with serving() as at, at.client.stream() as stream:
        with pytest.raises(mynah.InvalidArgument) as raised:
            await stream.send("half a sign: \ud800")
        assert raised.value.field == "content"
        assert stream.pending_chars == 0
        await stream.send("Fine.")
        await stream.end()
        assert sum([chunk.samples async for chunk in stream]) == 5 * 960


async def test_synthesize_ends_with_the_servers_error():
    async with serving(BROKEN) as at:
        async with aclosing(at.client.synthesize("A sentence that breaks.")) as audio:
            await anext(audio)
            with pytest.raises(mynah.ServerError) as raised:
                await anext(audio)
        assert raised.value.reason == "ENGINE_FAILURE"
