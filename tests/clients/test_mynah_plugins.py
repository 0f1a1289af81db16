"""Mynah's own plugins in the real frameworks: words in, audio out, and a free server after an interruption."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from livekit.agents import APIConnectionError, APIConnectOptions, APIStatusError
from livekit.agents.types import USERDATA_TIMED_TRANSCRIPT
from livekit.plugins import mynah as livekit_mynah
from pipecat.frames.frames import (
    EndFrame,
    Frame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineParams, PipelineTask
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.transcriptions.language import Language
from pipecat_mynah import MynahTTSService

import mynah
from tests.clients.conftest import Addresses

SENTENCES = ["Good morning to everybody here. ", "This is the second sentence of three. ", "And that was it."]
TEXT = "".join(SENTENCES)
SPOKEN_WORDS = TEXT.split()  # a transcript keeps the marks
SPOKEN_S = sum(len(sentence.strip()) for sentence in SENTENCES) * 0.04
LONG = "This is said again and again, for minutes. " * 450  # 40 s of the fake engine's time
ONCE = APIConnectOptions(max_retry=0, timeout=10)


def words(text: str) -> list[str]:
    return [word + " " for word in text.split()]


async def is_idle(server: Addresses) -> None:
    """Returns once no stream is open, which the server says itself; long before the text could have been spoken."""
    async with asyncio.timeout(30), mynah.Client(server.grpc) as client:
        while (await client.info()).open_streams:
            pass


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[mynah.SpeechStream]:
    """The streams that the plugins' clients begin."""
    begun: list[mynah.SpeechStream] = []
    stream = mynah.Client.stream

    def noted(client: mynah.Client, **settings) -> mynah.SpeechStream:
        begun.append(stream(client, **settings))
        return begun[-1]

    monkeypatch.setattr(mynah.Client, "stream", noted)
    return begun


# LiveKit


async def test_livekit_gets_audio_while_words_are_still_to_come(server: Addresses):
    async with livekit_mynah.TTS(server.grpc) as tts, tts.stream() as stream:
        for word in words(SENTENCES[0] + "And"):
            stream.push_text(word)
        first = await anext(stream)
        assert first.frame.sample_rate == 24_000
        for word in words("that was it."):
            stream.push_text(word)
        stream.end_input()
        duration_s = first.frame.duration + sum([audio.frame.duration async for audio in stream])
    assert duration_s == pytest.approx((len(SENTENCES[0].strip()) + len("And that was it.")) * 0.04, abs=0.05)


async def test_livekit_speaks_a_whole_text_at_another_rate(server: Addresses):
    tts = livekit_mynah.TTS(server.grpc, sample_rate=16_000, voice="default")
    async with tts, tts.synthesize(TEXT) as stream:
        frames = [audio.frame async for audio in stream]
    assert {frame.sample_rate for frame in frames} == {16_000}
    assert sum(frame.duration for frame in frames) == pytest.approx(SPOKEN_S, abs=0.05)


async def test_livekit_speaks_at_a_speed(server: Addresses):
    async with livekit_mynah.TTS(server.grpc, speed=2.0) as tts:
        async with tts.synthesize(TEXT) as stream:
            fast_s = sum([audio.frame.duration async for audio in stream])
        tts.update_options(speed=0.5)
        async with tts.synthesize(TEXT) as stream:
            slow_s = sum([audio.frame.duration async for audio in stream])
    assert (fast_s, slow_s) == (pytest.approx(SPOKEN_S / 2, abs=0.05), pytest.approx(SPOKEN_S * 2, abs=0.05))


TEXT_SETTINGS = mynah.TextSettings(normalize=False, dictionary=(mynah.DictionaryEntry("is", "goes on and on"),))
RESPELLED_S = sum(len(sentence.strip().replace(" is ", " goes on and on ")) for sentence in SENTENCES) * 0.04


async def test_livekit_passes_on_how_text_is_read(server: Addresses):
    async with livekit_mynah.TTS(server.grpc, text_settings=TEXT_SETTINGS, first_segment="clause") as tts:
        async with tts.synthesize(TEXT) as stream:
            respelled_s = sum([audio.frame.duration async for audio in stream])
        async with await tts.open_stream() as stream:
            assert (stream.opened.settings.first_segment, stream.opened.settings.text.normalize) == ("clause", False)
        tts.update_options(text_settings=mynah.TextSettings())
        async with tts.synthesize(TEXT) as stream:
            plain_s = sum([audio.frame.duration async for audio in stream])
    assert (respelled_s, plain_s) == (pytest.approx(RESPELLED_S, abs=0.05), pytest.approx(SPOKEN_S, abs=0.05))


async def test_livekit_frees_the_server_when_it_is_interrupted(server: Addresses):
    async with livekit_mynah.TTS(server.grpc) as tts:
        stream = tts.stream()
        stream.push_text(LONG)
        stream.end_input()
        await anext(stream)
        await stream.aclose()
        await is_idle(server)
        async with tts.synthesize("Yes?") as answer:
            assert [audio async for audio in answer]


async def test_livekit_gets_typed_errors(server: Addresses):
    async with livekit_mynah.TTS(server.grpc, voice="nobody") as tts:
        with pytest.raises(APIStatusError) as raised:
            async with tts.synthesize("Hello.", conn_options=ONCE) as stream:
                _ = [audio async for audio in stream]
        assert (raised.value.status_code, raised.value.retryable) == (404, False)
        assert raised.value.body == {"reason": "VOICE_NOT_FOUND", "field": "voice_id", "allowed": "default"}
        tts.update_options(voice="default", sampling=mynah.Sampling(seed=1))
        async with tts.synthesize("Hello.") as stream:
            assert [audio async for audio in stream]
    async with livekit_mynah.TTS("127.0.0.1:1") as tts:
        with pytest.raises(APIConnectionError):
            async with tts.synthesize("Hello.", conn_options=ONCE) as stream:
                _ = [audio async for audio in stream]


async def test_livekit_passes_on_what_models_have(server: Addresses):
    tts = livekit_mynah.TTS(server.grpc, language="en-GB")
    async with tts, tts.synthesize("Hello.") as stream:
        assert [audio async for audio in stream]
    for options, reason in (
        ({"language": "de"}, "LANGUAGE_UNSUPPORTED"),  # of the fake engine, whose model is of English alone
        ({"cfg_weight": 0.5}, "CFG_WEIGHT_UNSUPPORTED"),
        ({"exaggeration": 0.5}, "EXAGGERATION_UNSUPPORTED"),
        ({"model": "unknown"}, "MODEL_NOT_FOUND"),
    ):
        async with livekit_mynah.TTS(server.grpc) as tts:
            tts.update_options(**options)
            with pytest.raises(APIStatusError) as raised:
                async with tts.synthesize("Hello.", conn_options=ONCE) as stream:
                    _ = [audio async for audio in stream]
        assert raised.value.body["reason"] == reason


async def test_livekit_has_sentences_go_on_from_each_other_if_asked(server: Addresses, streams: list):
    for chosen in (True, None):
        async with livekit_mynah.TTS(server.grpc, continuity=chosen) as tts, tts.synthesize(TEXT) as stream:
            assert [audio async for audio in stream]
    assert [stream.opened.settings.continuity for stream in streams] == [True, False]


async def test_livekit_gets_the_words_with_their_times(server: Addresses):
    timed = []
    async with livekit_mynah.TTS(server.grpc, word_times=True) as tts:
        assert tts.capabilities.aligned_transcript
        async with tts.synthesize(TEXT) as stream:
            async for audio in stream:
                timed += audio.frame.userdata.get(USERDATA_TIMED_TRANSCRIPT, [])
    assert [str(word).strip() for word in timed] == SPOKEN_WORDS
    assert all(
        word.end_time - word.start_time == pytest.approx(len(word.strip(". ")) * 0.04, abs=0.01) for word in timed
    )
    assert [word.start_time for word in timed] == sorted(word.start_time for word in timed)


# Pipecat


class Recorder(FrameProcessor):
    """Records the frames that pass downstream, and says when audio has come."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []
        self.heard = asyncio.Event()

    async def process_frame(self, frame, direction) -> None:
        await super().process_frame(frame, direction)
        self.frames.append(frame)
        if isinstance(frame, TTSAudioRawFrame):
            self.heard.set()
        await self.push_frame(frame, direction)

    def count(self, kind: type[Frame]) -> int:
        return sum(isinstance(frame, kind) for frame in self.frames)

    @property
    def spoken_s(self) -> float:
        audio = [frame for frame in self.frames if isinstance(frame, TTSAudioRawFrame)]
        return sum(len(frame.audio) / 2 / frame.sample_rate for frame in audio)


class Running:
    """A pipeline of one service, its recorder and the errors that it pushed."""

    def __init__(self, tts: MynahTTSService) -> None:
        self.recorder = Recorder()
        self.errors: list[str] = []
        params = PipelineParams(audio_out_sample_rate=24_000)
        self.task = PipelineTask(Pipeline([tts, self.recorder]), params=params)

        @tts.event_handler("on_error")
        async def on_error(_: MynahTTSService, error) -> None:
            self.errors.append(error.error)

    async def queue(self, *frames: Frame) -> None:
        await self.task.queue_frames(list(frames))


@asynccontextmanager
async def pipeline(server: Addresses, **options) -> AsyncIterator[Running]:
    """Runs until the block has ended and all that was queued is spoken."""
    running = Running(MynahTTSService(server.grpc, **options))
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(PipelineRunner(handle_sigint=False).run(running.task))
        yield running
        await running.queue(EndFrame())


def turn(text: str) -> list[Frame]:
    return [LLMFullResponseStartFrame(), *map(LLMTextFrame, words(text)), LLMFullResponseEndFrame()]


async def test_pipecat_speaks_a_turn_word_by_word(server: Addresses):
    async with pipeline(server) as running:
        await running.queue(LLMFullResponseStartFrame(), *map(LLMTextFrame, words(SENTENCES[0] + "And")))
        await running.recorder.heard.wait()  # before the rest is written
        await running.queue(*map(LLMTextFrame, words("that was it.")), LLMFullResponseEndFrame())
    spoken_s = (len(SENTENCES[0].strip()) + len("And that was it.")) * 0.04
    assert running.recorder.spoken_s == pytest.approx(spoken_s, abs=0.05)
    assert (running.recorder.count(TTSStartedFrame), running.recorder.count(TTSStoppedFrame)) == (1, 1)
    assert running.errors == []


async def test_pipecat_speaks_turns_and_sentences_in_order(server: Addresses):
    settings = MynahTTSService.Settings(voice="default", sampling=mynah.Sampling(seed=3))
    async with pipeline(server, settings=settings) as running:
        await running.queue(TTSSpeakFrame(SENTENCES[0]), *turn(SENTENCES[1]), TTSSpeakFrame(SENTENCES[2]))
    assert running.recorder.spoken_s == pytest.approx(SPOKEN_S, abs=0.05)
    assert running.recorder.count(TTSStoppedFrame) == 3
    assert running.errors == []


async def test_pipecat_pushes_each_word_when_it_is_spoken(server: Addresses):
    async with pipeline(server, word_times=True) as running:
        await running.queue(*turn(TEXT))
    texts = [frame for frame in running.recorder.frames if isinstance(frame, TTSTextFrame)]
    assert "".join("".join(frame.text for frame in texts).split()) == "".join(SPOKEN_WORDS)
    assert len(texts) >= len(SPOKEN_WORDS)
    assert [frame.pts for frame in texts] == sorted(frame.pts for frame in texts)
    assert running.errors == []


async def test_pipecat_speaks_at_a_speed(server: Addresses):
    async with pipeline(server, settings=MynahTTSService.Settings(speed=2.0)) as running:
        await running.queue(TTSSpeakFrame(SENTENCES[0]))
    assert running.recorder.spoken_s == pytest.approx(len(SENTENCES[0].strip()) * 0.04 / 2, abs=0.05)
    assert running.errors == []


async def test_pipecat_passes_on_how_text_is_read(server: Addresses):
    settings = MynahTTSService.Settings(text_settings=TEXT_SETTINGS)
    async with pipeline(server, settings=settings) as running:
        await running.queue(TTSSpeakFrame(SENTENCES[1]))
    respelled = SENTENCES[1].strip().replace(" is ", " goes on and on ")
    assert running.recorder.spoken_s == pytest.approx(len(respelled) * 0.04, abs=0.05)
    assert running.errors == []


async def test_pipecat_begins_with_a_clause_if_asked(server: Addresses):
    async with pipeline(server, first_segment="clause") as running:
        clause = "When the sun comes up tomorrow,"
        await running.queue(LLMFullResponseStartFrame(), *map(LLMTextFrame, words(f"{clause} we will")))
        await running.recorder.heard.wait()  # before its sentence is written
        await running.queue(*map(LLMTextFrame, words("walk.")), LLMFullResponseEndFrame())
    assert running.errors == []


async def test_pipecat_has_sentences_go_on_from_each_other_if_asked(server: Addresses, streams: list):
    for chosen in (True, None):
        async with pipeline(server, continuity=chosen) as running:
            await running.queue(TTSSpeakFrame("Hello there."))
        assert running.errors == []
    assert [stream.opened.settings.continuity for stream in streams] == [True, False]


async def test_pipecat_frees_the_server_when_it_is_interrupted(server: Addresses):
    async with pipeline(server) as running:
        await running.queue(*turn(LONG))
        await running.recorder.heard.wait()
        await running.queue(InterruptionFrame())
        await is_idle(server)
        await running.queue(TTSSpeakFrame("Yes?"))
    assert running.recorder.count(TTSStoppedFrame) >= 1
    assert running.recorder.spoken_s < len(LONG) * 0.04 / 2
    assert running.errors == []


async def test_pipecat_pushes_one_error_for_a_turn(server: Addresses):
    async with pipeline(server, settings=MynahTTSService.Settings(voice="nobody")) as running:
        await running.queue(*turn(TEXT))
    errors = [error for error in running.errors if "VOICE_NOT_FOUND" in error]
    assert len(errors) == 1, running.errors
    assert "the server has default" in errors[0]
    assert running.recorder.spoken_s == 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"language": Language.DE}, "LANGUAGE_UNSUPPORTED"),
        ({"cfg_weight": 0.5}, "CFG_WEIGHT_UNSUPPORTED"),
        ({"exaggeration": 0.5}, "EXAGGERATION_UNSUPPORTED"),
        ({"model": "unknown"}, "MODEL_NOT_FOUND"),
    ],
)
async def test_pipecat_passes_on_what_models_have(server: Addresses, options, reason: str):
    async with pipeline(server, settings=MynahTTSService.Settings(**options)) as running:
        await running.queue(TTSSpeakFrame("Hello."))
    assert [error for error in running.errors if reason in error], running.errors
    async with pipeline(server, settings=MynahTTSService.Settings(language=Language.EN_GB)) as running:
        await running.queue(TTSSpeakFrame("Hello."))
    assert running.errors == []
