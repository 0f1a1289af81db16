"""An inaudible watermark in all synthesised audio, so that it can be distinguished from a recording.

The marker is Resemble AI's Perth (package resemble-perth), which marks whole signals. Each chunk of a stream gets the
difference that the marker makes to it, faded in and out: lengths stay, the joins are those of the unmarked audio, and
a chunk does not wait for the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import io
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import soxr

from engines.api import AudioChunk, Engine, Event, Samples, Segment, SpeechStream
from engines.config import Sampling
from engines.model_spec import SAMPLE_RATE_HZ
from engines.voice import Voice
from engines.wrapper import EngineWrapper
from service.config import ConfigError

_PACKAGE = "perth"
_PERTH_RATE_HZ = 32_000
_FADE_SAMPLES = SAMPLE_RATE_HZ // 100  # 10 ms
# The marker's nets see 15 frames of 10 ms to each side, and a frame's window is 64 ms long.
_CONTEXT_SAMPLES = SAMPLE_RATE_HZ // 5
_TAIL_SAMPLES = SAMPLE_RATE_HZ // 10  # silence after a chunk: the marker drops a partial window at the end


class Marker(Protocol):
    """A watermark for whole signals."""

    def difference(self, samples: Samples) -> Samples:
        """Returns what marking adds to `samples`, (n,) at 24 kHz, n >= 7200. Blocks; called on one thread at a time."""
        ...


def is_enabled(choice: bool | None) -> bool:
    """Whether to mark: as chosen; if None, when the package is installed."""
    return choice if choice is not None else importlib.util.find_spec(_PACKAGE) is not None


class PerthMarker:
    """Resemble AI's implicit watermark. Raises ConfigError if a package is missing."""

    def __init__(self) -> None:
        try:
            # the package itself hides an ImportError and sets the class to None
            module = importlib.import_module("perth.perth_net.perth_net_implicit.perth_watermarker")
            with contextlib.redirect_stdout(io.StringIO()):
                self._perth: Any = module.PerthImplicitWatermarker(device="cpu")
        except Exception as error:
            needs = 'resemble-perth with torchaudio, librosa, pyyaml and "setuptools<81"'
            raise ConfigError(
                f"watermark = on needs {needs}: {error!r}. Install them or set watermark = off."
            ) from error
        self._perth.perth_net.requires_grad_(False)  # otherwise every call keeps its graph

    def difference(self, samples: Samples) -> Samples:
        plain = soxr.resample(samples, SAMPLE_RATE_HZ, _PERTH_RATE_HZ)
        marked = self._perth.apply_watermark(plain, sample_rate=_PERTH_RATE_HZ)
        added = np.zeros_like(plain)
        length = min(len(plain), len(marked))  # the marker drops a partial window at the end
        added[:length] = marked[:length] - plain[:length]
        difference = np.zeros_like(samples)
        back = soxr.resample(added, _PERTH_RATE_HZ, SAMPLE_RATE_HZ)[: len(samples)]
        difference[: len(back)] = back
        return difference


class StreamMark:
    """Marks the chunks of one stream, in order."""

    def __init__(self, marker: Marker) -> None:
        self._marker = marker
        self._context: Samples = np.zeros(_CONTEXT_SAMPLES, np.float32)  # unmarked audio before the next chunk

    def mark(self, samples: Samples) -> Samples:
        """Returns the marked chunk: (n,) -> (n,). The first and the last sample do not change."""
        tail = np.zeros(_TAIL_SAMPLES, np.float32)
        signal = np.concatenate([self._context, samples, tail])
        added = self._marker.difference(signal)[_CONTEXT_SAMPLES : _CONTEXT_SAMPLES + len(samples)]
        self._context = signal[len(samples) : len(samples) + _CONTEXT_SAMPLES]
        marked: Samples = samples + added * _fades(len(samples))
        return marked


def _fades(length: int) -> Samples:
    """(length,) gains: 0 to 1 over a fade, then 1, then back to 0."""
    position = np.arange(length, dtype=np.float32)
    return np.minimum(np.minimum(position, position[::-1]) / _FADE_SAMPLES, np.float32(1))


class MarkedEngine(EngineWrapper):
    """An Engine that marks every chunk of another one, on a thread of its own."""

    def __init__(self, engine: Engine, marker: Marker) -> None:
        super().__init__(engine)
        self._marker = marker
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="watermark")

    async def open(self, voice: Voice, sampling: Sampling) -> SpeechStream:
        return _MarkedStream(await self._engine.open(voice, sampling), StreamMark(self._marker), self._thread)

    async def warm_up(self) -> None:
        """As Engine.warm_up; then marks once, because the first call takes longer than others."""
        await self._engine.warm_up()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, StreamMark(self._marker).mark, np.zeros(SAMPLE_RATE_HZ, np.float32))

    async def close(self) -> None:
        await self._engine.close()
        self._thread.shutdown()


class _MarkedStream:
    def __init__(self, stream: SpeechStream, mark: StreamMark, thread: ThreadPoolExecutor) -> None:
        self._stream, self._mark, self._thread = stream, mark, thread

    def prepare(self, segment: Segment) -> None:
        self._stream.prepare(segment)

    async def speak(self, segment: Segment) -> AsyncGenerator[Event, None]:
        loop = asyncio.get_running_loop()
        async with contextlib.aclosing(self._stream.speak(segment)) as events:
            async for event in events:
                if isinstance(event, AudioChunk):
                    work = partial(self._mark.mark, event.samples)
                    yield replace(event, samples=await loop.run_in_executor(self._thread, work))
                else:
                    yield event

    async def close(self) -> None:
        await self._stream.close()
