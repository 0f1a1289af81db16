"""Scripted stand-ins for T3 and S3Gen: ordinary classes with the stages' contracts and no model behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

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
    """One code per text token times `codes_per_text_token`, each `token_s` of (virtual) time apart."""

    name = "fake"

    def __init__(self, codes_per_text_token: int = 2, token_s: float = 0.01, fail_after: int | None = None) -> None:
        self.codes_per_text_token = codes_per_text_token
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

    def __init__(self, backend: FakeT3, request: T3Request) -> None:
        self.backend = backend
        count = len(request.text_tokens) * backend.codes_per_text_token
        rng = np.random.default_rng(request.sampling.seed % 2**32)
        self.speech_tokens = [*rng.integers(0, 6561, count).tolist(), *[SILENCE_SPEECH_TOKEN] * 3]
        self.position = 0

    def set_target(self, speech_tokens: int) -> None:
        """Makes all of them."""

    async def next_codes(self) -> list[int]:
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


class FakeRuntime:
    """Mel carries each token's id, the waveform carries the mel: what went in can be read off what comes out."""

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
    """Runs batches on the event loop, each taking `batch_s` and `token_s` for every window token of (virtual) time."""

    def __init__(self, runtime: FakeRuntime, batch_s: float, token_s: float = 0.0) -> None:
        self.runtime, self.batch_s, self.token_s = runtime, batch_s, token_s
        self.batches: list[list[DecodeRequest]] = []

    async def __call__(self, batch: Sequence[DecodeRequest]) -> Results:
        self.batches.append(list(batch))
        await asyncio.sleep(self.batch_s + self.token_s * sum(request.tokens for request in batch))
        return decode_windows(self.runtime, [(request.decoder, request.window) for request in batch])
