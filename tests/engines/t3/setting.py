"""Helpers of the T3 tests: a tiny checkpoint's net, voices, requests, and a run of a decoder to its end."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from engines.checkpoints.checkpoint import Checkpoint
from engines.config import Sampling
from engines.model_spec import TINY
from engines.t3.backend import T3Request
from engines.t3.decoder import DecoderLimits, T3Decoder
from engines.t3.model import T3Net
from engines.t3.random_weights import random_tensors
from engines.voice import Voice

CPU = torch.device("cpu")


@cache
def _folder() -> TemporaryDirectory[str]:
    folder = TemporaryDirectory()
    save_file(dict(random_tensors(TINY, seed=0)), Path(folder.name) / TINY.t3_file)
    return folder


def checkpoint() -> Checkpoint:
    return Checkpoint(Path(_folder().name), TINY, random_weights=True)


@cache
def net() -> T3Net:
    return T3Net.load(checkpoint().t3_path, TINY, CPU)


class WrappedNet(T3Net):
    """The same weights in an object of its own, whose methods a test may override."""

    def __init__(self, wrapped: T3Net) -> None:
        self.__dict__.update(wrapped.__dict__)


class RecordingNet(WrappedNet):
    """Keeps every batch of logits, (rows, 6563)."""

    def __init__(self, wrapped: T3Net) -> None:
        super().__init__(wrapped)
        self.logits: list[torch.Tensor] = []

    def speech_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        self.logits.append(super().speech_logits(hidden))
        return self.logits[-1]


def voice(seed: int = 0, prompt_tokens: int = 75) -> Voice:
    rng = np.random.default_rng(seed)
    embedding = rng.standard_normal(256, dtype=np.float32)
    return Voice(
        name=f"voice {seed}",
        speaker_embedding=embedding / np.linalg.norm(embedding),
        t3_prompt_tokens=rng.integers(0, 6561, prompt_tokens),
        s3gen_prompt_tokens=rng.integers(0, 6561, 4),
        s3gen_prompt_mel=rng.standard_normal((8, 80), dtype=np.float32),
        x_vector=rng.standard_normal(192, dtype=np.float32),
    )


def request(seed: int = 0, *, text: int = 20, of: Voice | None = None, **sampling: Any) -> T3Request:
    """A request with `text` random tokens. `seed` decides text and draws, and the voice unless `of` is one."""
    ids = np.random.default_rng(seed).integers(0, TINY.t3.text_vocab, text)
    return T3Request(tuple(ids.tolist()), of or voice(seed), Sampling(seed=seed, **sampling))


def limits(**changed: int) -> DecoderLimits:
    usual = {"max_streams": 4, "max_positions": 2048, "prefill_chunk_positions": 64, "prefix_cache_bytes": 1 << 28}
    return DecoderLimits(**(usual | changed))


def run(decoder: T3Decoder, *requests: T3Request) -> list[list[int]]:
    """Queue the requests and step until all are done; returns their raw tokens. Failures are raised."""
    sequences = [decoder.add(request) for request in requests]
    while not decoder.idle:
        for progress in decoder.step():
            if progress.error is not None:
                raise progress.error
    return [sequence.speech.raw for sequence in sequences]
