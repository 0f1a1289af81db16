"""Scripted T3 and S3Gen: ordinary classes with the stages' interfaces and no model."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from engines.api import Observer
from engines.errors import EngineFailure
from engines.model_spec import MEL_HOP_SAMPLES, SILENCE_SPEECH_TOKEN
from engines.s3gen.runtime import F32, FlowBatch, VocoderBatch, VocoderResult
from engines.s3gen.streaming.batcher import Results
from engines.s3gen.streaming.segment_decoder import decode_windows
from engines.s3gen.streaming.window_queue import DecodeRequest
from engines.t3.backend import T3Request
from engines.voice import Voice


def make_voice(prompt_tokens: int = 20, name: str = "test") -> Voice:
    rng = np.random.default_rng(prompt_tokens)
    return Voice(
        name=name,
        speaker_embedding=rng.standard_normal(256, dtype=np.float32),
        t3_prompt_tokens=rng.integers(0, 6561, prompt_tokens),
        s3gen_prompt_tokens=rng.integers(0, 6561, prompt_tokens),
        s3gen_prompt_mel=rng.standard_normal((2 * prompt_tokens, 80), dtype=np.float32),
        x_vector=rng.standard_normal(192, dtype=np.float32),
    )


class FakeT3:
    """Every text token gives `tokens_per_text_token` speech tokens, `token_s` of (virtual) time apart."""

    name = "fake"

    def __init__(self, tokens_per_text_token: int = 2, token_s: float = 0.01, fail_after: int | None = None) -> None:
        self.tokens_per_text_token = tokens_per_text_token
        self.token_s = token_s
        self.fail_after = fail_after
        self.running: set[FakeGeneration] = set()
        self.started: list[T3Request] = []

    def start(self, request: T3Request) -> FakeGeneration:
        self.started.append(request)
        generation = FakeGeneration(self, request)
        self.running.add(generation)
        return generation

    async def close(self) -> None:
        for generation in list(self.running):
            await generation.cancel()


class FakeGeneration:
    hit_token_limit = False
    hit_runaway_limit = False

    def __init__(self, backend: FakeT3, request: T3Request) -> None:
        self.backend = backend
        self.made_ahead = request.made_ahead
        count = len(request.text_tokens) * backend.tokens_per_text_token
        if request.runaway_tokens is not None and count > request.runaway_tokens:
            count, self.hit_runaway_limit = request.runaway_tokens, True
        rng = np.random.default_rng(request.sampling.seed % 2**32)
        self.speech_tokens = [*rng.integers(0, 6561, count).tolist(), *[SILENCE_SPEECH_TOKEN] * 3]
        self.position = 0

    def set_target(self, speech_tokens: int) -> None:
        """Has no effect: all tokens are made at once."""

    def promote(self) -> None:
        self.made_ahead = False

    async def next_speech_tokens(self) -> list[int]:
        if self.position >= len(self.speech_tokens):
            self.backend.running.discard(self)
            return []
        await asyncio.sleep(self.backend.token_s)
        if self.backend.fail_after is not None and self.position >= self.backend.fail_after:
            raise EngineFailure("scripted T3 failure")
        self.position += 1
        return [self.speech_tokens[self.position - 1]]

    async def cancel(self) -> None:
        self.backend.running.discard(self)


class SharedT3(FakeT3):
    """A T3 whose requests share one device: a step of `token_s` makes one token, for the request that was served
    least recently; those made ahead are served only when no other has anything to do."""

    def __init__(self, tokens_per_text_token: int = 1, token_s: float = 0.02) -> None:
        super().__init__(tokens_per_text_token, token_s)
        self._steps: asyncio.Task[None] | None = None

    def start(self, request: T3Request) -> SharedGeneration:
        self.started.append(request)
        generation = SharedGeneration(self, request)
        self.running.add(generation)
        self.wake()
        return generation

    def wake(self) -> None:
        if self._steps is None:
            self._steps = asyncio.create_task(self._run())

    async def _run(self) -> None:
        steps = 0
        while ready := [g for g in self.running if isinstance(g, SharedGeneration) and not g.paused]:
            chosen = min(ready, key=lambda generation: (generation.made_ahead, generation.last_step))
            await asyncio.sleep(self.token_s)
            steps += 1
            chosen.last_step = steps
            chosen.make_one()
        self._steps = None


class SharedGeneration(FakeGeneration):
    def __init__(self, backend: SharedT3, request: T3Request) -> None:
        super().__init__(backend, request)
        self.shared = backend
        self.last_step = 0
        self.made = 0
        self.target = len(self.speech_tokens)
        self._news = asyncio.Event()

    @property
    def paused(self) -> bool:
        return self.made >= min(self.target, len(self.speech_tokens))

    def make_one(self) -> None:
        self.made += 1
        self._news.set()

    def set_target(self, speech_tokens: int) -> None:
        self.target = speech_tokens
        self.shared.wake()

    async def next_speech_tokens(self) -> list[int]:
        while self.position == self.made < len(self.speech_tokens):
            self._news.clear()
            await self._news.wait()
        if self.position == len(self.speech_tokens):
            self.backend.running.discard(self)
        new = self.speech_tokens[self.position : self.made]
        self.position = self.made
        return new


class FakeRuntime:
    """Mel frames hold their token's id, the waveform holds the mel, so that outputs can be traced to inputs."""

    name = "fake"
    cfm_s = None

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.poison: int | None = None  # a token id whose row comes out as NaN
        self.explosive: int | None = None  # a token id that makes the whole call raise

    def flow(self, batch: FlowBatch) -> F32:
        self.batches.append(len(batch.tokens))
        for row, length in zip(batch.tokens, batch.token_lengths, strict=True):
            if self.explosive is not None and self.explosive in row[:length]:
                raise RuntimeError("scripted runtime failure")
        frames = np.repeat(batch.tokens, 2, axis=1).astype(np.float32) / 6561
        mel = np.repeat(frames[:, :, None], 80, axis=2)
        if self.poison is not None:
            mel[(batch.tokens == self.poison).any(axis=1)] = np.nan
        return mel

    def vocoder(self, batch: VocoderBatch) -> VocoderResult:
        return VocoderResult(np.repeat(batch.mel[:, :, 0], MEL_HOP_SAMPLES, axis=1), batch.mel[:, :, 0] * 100)


class SlowExecute:
    """Runs batches on the event loop; each takes `batch_s`, and `token_s` for every window token, of virtual time."""

    def __init__(self, runtime: FakeRuntime, batch_s: float, token_s: float = 0.0) -> None:
        self.runtime, self.batch_s, self.token_s = runtime, batch_s, token_s
        self.batches: list[list[DecodeRequest]] = []

    async def __call__(self, batch: Sequence[DecodeRequest]) -> Results:
        self.batches.append(list(batch))
        await asyncio.sleep(self.batch_s + self.token_s * sum(request.tokens for request in batch))
        return decode_windows(self.runtime, [(request.decoder, request.window) for request in batch])


class CallObserver(Observer):
    """Records the blocking calls that have begun and not returned, and how many have returned, by stage."""

    def __init__(self) -> None:
        self.running: Counter[str] = Counter()
        self.returned: Counter[str] = Counter()

    @contextmanager
    def calling(self, stage: str) -> Iterator[None]:
        self.running[stage] += 1
        try:
            yield
        finally:
            self.running[stage] -= 1
            self.returned[stage] += 1
