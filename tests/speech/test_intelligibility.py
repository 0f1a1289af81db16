"""Speech stays intelligible through everything that is done to it: the quality gate, on weights that really speak."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

import mynah
from bench.demo import server
from bench.seams import find_seams
from engines.checkpoints.checkpoint import Checkpoint
from engines.model_spec import SAMPLE_RATE_HZ
from engines.s3gen.runtimes.onnx import OnnxRuntime
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.s3gen.runtimes.torch_cached import TorchCachedRuntime
from engines.s3gen.streaming.schedule import SCHEDULES
from service.audio.encoder import Encoder
from service.audio.formats import AudioFormat, AudioSettings
from tests.service.audio.decoding import decode
from tests.speech.conftest import ABOVE_TEACHER, TEXTS, Offline, codes_on, judge, one_pass, teacher
from tests.speech.recogniser import word_error_rate, words
from tests.speech.speaking import OFFLINE, render

_STREAMS = 8
_TELEPHONE_COSTS = 0.15  # word error rate, of a recogniser that was trained on 16 kHz


def test_speech_is_understood_nearly_as_well_as_its_teacher(offline: Offline) -> None:
    assert offline.word_error_rate <= teacher("rms") + ABOVE_TEACHER


@pytest.mark.parametrize("voice", ["rms", "slt"])
def test_a_clip_selects_a_voice_that_is_understood(of_a_clip: dict[str, Offline], voice: str) -> None:
    assert of_a_clip[voice].word_error_rate <= teacher(voice) + ABOVE_TEACHER


@pytest.mark.parametrize("preset", list(SCHEDULES))
def test_streaming_costs_no_words_and_leaves_no_seams(
    offline: Offline, torch_runtime: TorchRuntime, preset: str
) -> None:
    made = [render(torch_runtime, codes, offline.voice, SCHEDULES[preset]) for codes in offline.codes]
    assert sum(len(one.joins) for one in made) >= len(made)
    assert not [seam for one in made for seam in find_seams(one.samples, one.joins)]
    assert judge(made) <= offline.allowed


def test_cached_decoding_costs_no_words(offline: Offline, torch_runtime: TorchRuntime) -> None:
    runtime = TorchCachedRuntime(torch_runtime)
    made = [render(runtime, codes, offline.voice, SCHEDULES["balanced"]) for codes in offline.codes]
    assert not [seam for one in made for seam in find_seams(one.samples, one.joins)]
    assert judge(made) <= offline.allowed


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_onnx_runtime_costs_no_words(offline: Offline, checkpoint: Checkpoint, precision: str) -> None:
    runtime = OnnxRuntime(checkpoint, threads=2, precision=precision)
    made = [render(runtime, codes, offline.voice, OFFLINE) for codes in offline.codes]
    assert judge(made) <= offline.allowed


def test_t3_on_onnx_runtime_is_understood_as_well(offline: Offline, torch_runtime: TorchRuntime) -> None:
    """Greedy agreement is tested elsewhere; sampled codes part where rounding decides, and stay as good."""
    made = one_pass(torch_runtime, *asyncio.run(codes_on("onnx")))
    assert made.word_error_rate <= offline.allowed


@pytest.fixture(scope="module")
def a_few(offline: Offline) -> tuple[list[tuple[str, np.ndarray]], float]:
    """Three sentences as they were spoken, and the word error rate that a format may bring them to."""
    pairs = [(text, one.samples) for text, one in zip(TEXTS[:3], offline.renderings, strict=False)]
    one_word = 1 / sum(len(words(text)) for text, _ in pairs)
    return pairs, word_error_rate(pairs, SAMPLE_RATE_HZ) + one_word


@pytest.mark.parametrize("audio_format", list(AudioFormat), ids=lambda one: one.value)
def test_every_format_keeps_the_words(
    a_few: tuple[list[tuple[str, np.ndarray]], float], audio_format: AudioFormat
) -> None:
    pairs, allowed = a_few
    settings = AudioSettings(audio_format, audio_format.default_rate_hz)
    heard = [(text, _through(settings, samples)) for text, samples in pairs]
    narrow = settings.sample_rate_hz < 16_000
    assert word_error_rate(heard, settings.sample_rate_hz) <= allowed + _TELEPHONE_COSTS * narrow


def _through(settings: AudioSettings, samples: np.ndarray) -> np.ndarray:
    encoder, writer = Encoder(settings), settings.writer()
    made = [encoder.encode(piece) for piece in np.array_split(samples, 5)]
    made.append(encoder.end_segment())
    return decode(b"".join(writer.write(encoded.packets) for encoded in made), settings)


def test_eight_streams_at_once_word_by_word_are_understood_as_well(offline: Offline) -> None:
    """Through a server and its client; seeds differ, so does the speech, and its quality must not."""
    texts = [TEXTS[i % len(TEXTS)] for i in range(max(_STREAMS, len(TEXTS)))]

    async def one(client: mynah.Client, text: str, room: asyncio.Semaphore) -> np.ndarray:
        data = b""
        async with room, client.stream(audio_format="pcm_s16le", sample_rate_hz=SAMPLE_RATE_HZ) as stream:
            for word in text.split():
                await stream.send(word + " ")
            await stream.end()
            async for chunk in stream:
                data += chunk.data
        return np.frombuffer(data, "<i2").astype(np.float32) / 32768

    async def everyone() -> list[np.ndarray]:
        room = asyncio.Semaphore(_STREAMS)
        async with server("tiny", "--max-streams", str(_STREAMS)) as address, mynah.Client(address) as client:
            return await asyncio.gather(*(one(client, text, room) for text in texts))

    heard = asyncio.run(everyone())
    assert word_error_rate(list(zip(texts, heard, strict=True)), SAMPLE_RATE_HZ) <= offline.allowed
