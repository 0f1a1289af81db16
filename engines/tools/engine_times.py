"""Timings of a whole engine (T3, conditioning, time to the first chunk), and its stages as separate calls."""

from __future__ import annotations

import asyncio
import contextlib
import io
import time
import wave
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.api import AudioChunk, Segment
from engines.checkpoints.checkpoint import Checkpoint
from engines.conditioning.builder import VoiceBuilder
from engines.config import Sampling
from engines.errors import EngineFailure
from engines.pipeline import Pipeline
from engines.s3gen.runtime import Runtime
from engines.t3.backend import T3Backend, T3Request
from engines.tools.s3gen_times import WINDOWS, window_calls
from engines.tools.t3_times import load_t3_calls
from engines.tools.torch_profiler import with_range
from engines.voice import Voice

FIRST_HOP_TOKENS = 14  # ten of the first hop, three of lookahead, one that shows that the segment goes on
_MORE_TOKENS = 40
_TEXT_TOKENS = tuple(range(1, 40))
_TEXT = "The quick brown fox jumps over the lazy dog."
_CLIP_S, _SYLLABLE_S, _CLIP_RATE_HZ = 15, 0.19, 24_000
_TRIES = 50


async def t3_seconds(engine: Pipeline, repeats: int, *, streams: int = 1) -> tuple[list[float], list[float]]:
    """Seconds to the first hop's speech tokens and seconds per later token, of `streams` simultaneous requests.

    The voice's prefix is cached.
    """
    voice = _voice(engine)
    await _first_and_next(engine, voice, seed=0)
    first: list[float] = []
    per_token: list[float] = []
    for turn in range(repeats):
        timed = await asyncio.gather(*(_first_and_next(engine, voice, 1 + turn * streams + n) for n in range(streams)))
        first += [head for head, _ in timed]
        per_token += [later for _, later in timed]
    return first, per_token


async def _first_and_next(engine: Pipeline, voice: Voice, seed: int) -> tuple[float, float]:
    """Random weights may stop anywhere: a request with too few speech tokens is repeated with another seed."""
    stages = engine.stages
    text = stages.encode_text(_TEXT)
    for attempt in range(_TRIES):
        seed_here, tokens_here = seed + 1_000_000 * attempt, FIRST_HOP_TOKENS + _MORE_TOKENS
        sampling = replace(engine.info.sampling, seed=seed_here, max_speech_tokens=tokens_here)
        generation = stages.t3.start(T3Request(text, voice, sampling))
        started_s, tokens, head_s, head = time.perf_counter(), 0, 0.0, 0
        while tokens < FIRST_HOP_TOKENS + _MORE_TOKENS and (speech_tokens := await generation.next_speech_tokens()):
            tokens += len(speech_tokens)
            if not head and tokens >= FIRST_HOP_TOKENS:
                head_s, head = time.perf_counter() - started_s, tokens
        total_s = time.perf_counter() - started_s
        await generation.cancel()
        if tokens >= FIRST_HOP_TOKENS + _MORE_TOKENS:
            return head_s, (total_s - head_s) / (tokens - head)
    raise EngineFailure(f"T3 stopped before {FIRST_HOP_TOKENS + _MORE_TOKENS} tokens in each of {_TRIES} attempts.")


async def first_chunk_seconds(engine: Pipeline, repeats: int) -> list[float]:
    """Seconds from a text to the first chunk of its audio, with the voice's caches warm."""
    times = []
    for turn in range(repeats + 1):
        stream = await engine.open(_voice(engine), replace(engine.info.sampling, seed=turn))
        started_s = time.perf_counter()
        speaking = stream.speak(Segment(0, _TEXT))
        async for event in speaking:
            if isinstance(event, AudioChunk):
                times.append(time.perf_counter() - started_s)
                break
        await speaking.aclose()
        await stream.close()
    return times[1:]


async def conditioning_seconds(engine: Pipeline, repeats: int) -> list[float]:
    """Seconds to make a voice from ten seconds of reference audio, including file decoding."""
    times = []
    for turn in range(repeats + 1):
        started_s = time.perf_counter()
        await engine.make_voice(clip(), name=f"timed {turn}")
        times.append(time.perf_counter() - started_s)
    return times[1:]


def stage_calls(
    checkpoint: Checkpoint, runtime: Runtime, device: str, windows: Sequence[str]
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each stage's name and call, for a profiler: S3Gen's three stages by window, T3's two, and conditioning.

    The iterator loads a stage's nets when it reaches them.
    """
    yield from s3gen_calls(runtime, windows)
    for name, step in load_t3_calls(checkpoint, device).items():
        yield f"t3-{name}", step
    builder, recording = VoiceBuilder(checkpoint), clip()
    builder.load()
    yield "conditioning", lambda: builder.build(recording, "profiled")


def s3gen_calls(runtime: Runtime, windows: Sequence[str]) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each stage of S3Gen by window, as a range that names the runtime."""
    for window in windows:
        for stage, call in window_calls(runtime, WINDOWS[window]).items():
            yield f"{stage}-{window}", with_range(call, f"S3Gen {stage} on {runtime.name}")


@contextlib.contextmanager
def t3_backend_call(backend: T3Backend, decoder: Any, voice: Voice) -> Iterator[Callable[[], object]]:
    """A call that makes the first speech tokens on a backend; meanwhile each of its decoder's steps is a range."""
    decoder.step = with_range(decoder.step, f"T3 step on {backend.name}")

    async def first_tokens() -> int:
        generation = backend.start(T3Request(_TEXT_TOKENS, voice, Sampling(seed=1, max_speech_tokens=FIRST_HOP_TOKENS)))
        return sum([len(tokens) async for tokens in _until_none(generation)])

    try:
        yield lambda: asyncio.run(first_tokens())
    finally:
        del decoder.step  # the class's own is back


async def _until_none(generation: Any) -> AsyncIterator[list[int]]:
    while tokens := await generation.next_speech_tokens():
        yield tokens


def clip() -> bytes:
    """A WAV file of fifteen seconds that passes for a voice: harmonics of a moving pitch, whose formants change from
    syllable to syllable, with hisses between some."""
    draw = np.random.default_rng(0)
    parts = [_syllable(draw) for _ in range(round(_CLIP_S / _SYLLABLE_S))]
    samples = np.concatenate(parts)
    pcm = (8000 * samples / np.abs(samples).max()).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(_CLIP_RATE_HZ)
        wav.writeframes(pcm.tobytes())
    return file.getvalue()


def _syllable(draw: np.random.Generator) -> npt.NDArray[np.float64]:
    """A hiss or none, then a vowel that moves from some formants to others."""
    count = round(_SYLLABLE_S * _CLIP_RATE_HZ)
    place = np.linspace(0, 1, count)
    pitch_hz = draw.uniform(95, 150) * (1 - 0.2 * place)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / _CLIP_RATE_HZ
    formants_hz = [draw.uniform(low, high, 2) for low, high in ((250, 850), (850, 2300), (2300, 3200))]
    voiced = np.zeros(count)
    for number in range(1, 40):
        frequency_hz = number * pitch_hz
        gain = sum(1 / (1 + ((frequency_hz - (a + (b - a) * place)) / 90) ** 2) for a, b in formants_hz)
        voiced += gain / number**0.5 * np.sin(number * phase)
    hiss = np.diff(draw.standard_normal(count + 1)) * 0.15 * (place < 0.25) * (draw.random() < 0.5)
    return voiced * np.sin(np.pi * np.clip((place - 0.1) / 0.85, 0, 1)) ** 0.7 + hiss


def _voice(engine: Pipeline) -> Voice:
    if engine.default_voice is None:
        raise EngineFailure("The model has no built-in voice to measure with.")
    return engine.default_voice
