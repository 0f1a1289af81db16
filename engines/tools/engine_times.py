"""What an assembled engine takes around S3Gen: T3's tokens, a voice's conditioning, and the way to the first sound.

Knows the engine's stages by their contracts, and wall time; knows no model library.
"""

from __future__ import annotations

import asyncio
import io
import time
import wave

import numpy as np

from engines.api import AudioChunk, Segment
from engines.config import Sampling
from engines.errors import EngineFailure
from engines.pipeline import Pipeline
from engines.t3.backend import T3Request
from engines.voice import Voice

FIRST_HOP_CODES = 14  # ten of the first hop, three of lookahead, one that proves that more will come
_MORE_CODES = 40
_TEXT = "The quick brown fox jumps over the lazy dog."
_CLIP_S, _CLIP_RATE_HZ = 10, 24_000
_TRIES = 50


async def t3_seconds(engine: Pipeline, repeats: int, *, streams: int = 1) -> tuple[list[float], list[float]]:
    """For a warm voice, `streams` requests at once: seconds to the first hop's codes, and for each code after it."""
    voice = _voice(engine)
    await _first_and_next(engine, voice, seed=0)
    first: list[float] = []
    each: list[float] = []
    for turn in range(repeats):
        timed = await asyncio.gather(*(_first_and_next(engine, voice, 1 + turn * streams + n) for n in range(streams)))
        first += [head for head, _ in timed]
        each += [later for _, later in timed]
    return first, each


async def _first_and_next(engine: Pipeline, voice: Voice, seed: int) -> tuple[float, float]:
    """A request whose text is drawn too short (random weights may stop anywhere) is drawn again."""
    stages = engine.stages
    text = stages.encode_text(_TEXT)
    for attempt in range(_TRIES):
        sampling = Sampling(seed=seed + 1_000_000 * attempt, max_speech_tokens=FIRST_HOP_CODES + _MORE_CODES)
        generation = stages.t3.start(T3Request(text, voice, sampling))
        started_s, made, head_s, head = time.perf_counter(), 0, 0.0, 0
        while made < FIRST_HOP_CODES + _MORE_CODES and (speech_tokens := await generation.next_speech_tokens()):
            made += len(speech_tokens)
            if not head and made >= FIRST_HOP_CODES:
                head_s, head = time.perf_counter() - started_s, made
        total_s = time.perf_counter() - started_s
        await generation.cancel()
        if made >= FIRST_HOP_CODES + _MORE_CODES:
            return head_s, (total_s - head_s) / (made - head)
    raise EngineFailure(f"T3 stopped before {FIRST_HOP_CODES + _MORE_CODES} tokens {_TRIES} times")


async def first_sound_seconds(engine: Pipeline, repeats: int) -> list[float]:
    """From a text to the first chunk of its audio, the voice warm: what a listener waits for."""
    times = []
    for turn in range(repeats + 1):
        stream = await engine.open(_voice(engine), Sampling(seed=turn))
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
    """A voice out of ten seconds of reference audio, file decoding included."""
    times = []
    for turn in range(repeats + 1):
        started_s = time.perf_counter()
        await engine.make_voice(clip(), name=f"timed {turn}")
        times.append(time.perf_counter() - started_s)
    return times[1:]


def clip() -> bytes:
    """Ten seconds of a buzz whose pitch and loudness move as a voice's do, as a WAV file."""
    t = np.arange(_CLIP_S * _CLIP_RATE_HZ) / _CLIP_RATE_HZ
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * t)) / _CLIP_RATE_HZ
    buzz = sum(np.sin(n * phase) / n for n in range(1, 20)) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t))
    samples = (8000 * buzz / np.abs(buzz).max()).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(_CLIP_RATE_HZ)
        wav.writeframes(samples.tobytes())
    return file.getvalue()


def _voice(engine: Pipeline) -> Voice:
    if engine.default_voice is None:
        raise EngineFailure("there is no built-in voice to measure with")
    return engine.default_voice
