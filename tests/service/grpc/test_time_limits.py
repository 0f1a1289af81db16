"""Deadlines of calls and the time that a refusal takes, over a real socket."""

from __future__ import annotations

import asyncio
import statistics
import time

import grpc
import grpc.aio
import pytest

import mynah
from engines.fake import Script
from mynah.v1 import speech_pb2, voices_pb2
from tests.service.serving import error_of, opening, serving, text

LONG = "This goes on for much longer than anybody wants to wait. " * 20


async def test_a_deadline_ends_a_stream_and_frees_all_it_held():
    async with serving(Script(token_s=0.05), max_streams=1) as at:
        call = at.speech.StreamSpeech(timeout=0.3)
        await call.write(opening())
        await call.write(text(LONG))
        began_s = time.monotonic()
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await at.settled()
        assert time.monotonic() - began_s < 2.0
        assert at.engine.cancelled_segments == 1


async def test_a_deadline_ends_a_synthesis_and_frees_all_it_held():
    async with serving(Script(token_s=0.05), max_streams=1) as at:
        call = at.speech.Synthesize(speech_pb2.SynthesizeRequest(text=LONG), timeout=0.3)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            async for _ in call:
                pass
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await at.settled()
        assert at.engine.cancelled_segments == 1


async def test_a_deadline_ends_an_upload():
    async with serving(Script(voice_s=60)) as at:
        call = at.voices.CreateVoice(timeout=0.3)
        await call.write(voices_pb2.CreateVoiceRequest(metadata=voices_pb2.NewVoice(name="A", consent=True)))
        await call.write(voices_pb2.CreateVoiceRequest(audio_chunk=bytes(5000)))
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await at.settled()


async def test_beyond_the_capacity_the_answer_is_quick_and_says_when_to_come_back():
    async with serving(Script(token_s=0.005), max_streams=4) as at:
        playing = [asyncio.create_task(spoken(at.client)) for _ in range(4)]
        await at.engine.progress.wait()
        took_s = []
        for _ in range(200):
            began_s = time.perf_counter()
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                async for _ in at.speech.Synthesize(speech_pb2.SynthesizeRequest(text="Hi.")):
                    pass
            took_s.append(time.perf_counter() - began_s)
            error = error_of(raised.value)
            assert (error.reason, error.code) == ("STREAMS_EXHAUSTED", "RESOURCE_EXHAUSTED")
            assert error.retry_after_s is not None
            assert error.retry_after_s > 0
        assert statistics.median(took_s) < 0.010
        for task in playing:
            task.cancel()
        await asyncio.gather(*playing, return_exceptions=True)


async def spoken(client: mynah.Client) -> int:
    return sum([chunk.samples async for chunk in client.synthesize(LONG[:1000])])
