"""What the tests of S3Gen's nets stand on: tiny checkpoints' nets and seeded inputs for them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from engines.checkpoints.checkpoint import Checkpoint
from engines.checkpoints.tensor_file import write_tensors
from engines.kernels.library import amx_supported
from engines.model_spec import (
    MEL_BANDS,
    MEL_HOP_SAMPLES,
    SPEECH_CODES,
    TINY,
    X_VECTOR_DIM,
    ModelSpec,
    with_guided_flow,
)
from engines.s3gen.nets.flow import Flow, load_flow
from engines.s3gen.nets.source import HARMONICS
from engines.s3gen.nets.vocoder import Vocoder
from engines.s3gen.nets.vocoder_weights import load_vocoder
from engines.s3gen.random_weights import random_tensors
from engines.s3gen.runtime import FlowBatch, VocoderBatch

GUIDED_TINY = with_guided_flow(TINY)
# The most that mels which are equal but for rounding differ by, as a part of the largest value. On AMX a float32 number
# is the sum of two bfloat16 numbers.
ROUNDING = 5e-5 if amx_supported() else 1e-5


@cache
def _folder() -> TemporaryDirectory[str]:
    """With the S3Gen files of both kinds."""
    folder = TemporaryDirectory()
    for spec in (TINY, GUIDED_TINY):
        write_tensors(Path(folder.name) / spec.s3gen_name, random_tensors(spec, seed=0))
    return folder


def checkpoint(spec: ModelSpec = TINY) -> Checkpoint:
    return Checkpoint(Path(_folder().name), spec, random_weights=True)


def flow(spec: ModelSpec = TINY) -> Flow:
    """A net of the caller's own: tests may change its settings."""
    return load_flow(checkpoint(spec).s3gen_path, spec)


def vocoder() -> Vocoder:
    """A net of the caller's own."""
    return load_vocoder(checkpoint().s3gen_path, TINY)


def flow_batch(prompt_tokens: list[int], new_tokens: list[int], seed: int = 1) -> FlowBatch:
    """Rows packed as FlowBatch says, with noise also in the pad."""
    draw = np.random.default_rng(seed)
    lengths = np.array([p + n for p, n in zip(prompt_tokens, new_tokens, strict=True)], np.int64)
    rows, most = len(lengths), int(lengths.max())
    tokens = draw.integers(0, SPEECH_CODES, (rows, most))
    prompt_mel = draw.normal(-5.0, 1.5, (rows, 2 * most, MEL_BANDS)).astype(np.float32)
    for row, (length, prompt) in enumerate(zip(lengths, prompt_tokens, strict=True)):
        tokens[row, length:] = 0
        prompt_mel[row, 2 * prompt :] = 0.0
    noise = draw.standard_normal(prompt_mel.shape, np.float32)
    return FlowBatch(tokens, lengths, prompt_mel, noise, draw.standard_normal((rows, X_VECTOR_DIM), np.float32))


def flow_row(batch: FlowBatch, row: int) -> FlowBatch:
    """One row alone, without its pad."""
    length, one = int(batch.token_lengths[row]), slice(row, row + 1)
    return FlowBatch(
        batch.tokens[one, :length],
        batch.token_lengths[one],
        batch.prompt_mel[one, : 2 * length],
        batch.noise[one, : 2 * length],
        batch.x_vector[one],
    )


def vocoder_batch(lengths: list[int], seed: int = 2) -> VocoderBatch:
    """Rows of mel such as the tiny flow gives, nothing fixed, phases and offsets at random, noise also in the pad."""
    draw = np.random.default_rng(seed)
    rows, most = len(lengths), max(lengths)
    mel = 1.4 * draw.standard_normal((rows, most, MEL_BANDS), np.float32)
    for row, length in enumerate(lengths):
        mel[row, length:] = 0.0
    offsets = draw.random((rows, HARMONICS), np.float32) - np.float32(0.5)
    offsets[:, 0] = 0.0
    return VocoderBatch(
        mel=mel,
        lengths=np.array(lengths, np.int64),
        fixed_f0_hz=np.zeros((rows, most), np.float32),
        fixed_frames=np.zeros(rows, np.int64),
        phase_cycles=draw.random(rows, np.float32),
        harmonic_cycles=offsets,
        noise=draw.standard_normal((rows, MEL_HOP_SAMPLES * most), np.float32),
    )


def vocoder_frames(batch: VocoderBatch, row: int, start: int, stop: int) -> VocoderBatch:
    """Frames [start, stop) of one row as a batch of its own; fixed f0 and phase are the caller's to set."""
    one = slice(row, row + 1)
    return VocoderBatch(
        mel=batch.mel[one, start:stop],
        lengths=np.array([stop - start]),
        fixed_f0_hz=batch.fixed_f0_hz[one, start:stop],
        fixed_frames=batch.fixed_frames[one],
        phase_cycles=batch.phase_cycles[one],
        harmonic_cycles=batch.harmonic_cycles[one],
        noise=batch.noise[one, start * MEL_HOP_SAMPLES : stop * MEL_HOP_SAMPLES],
    )


def flow_inputs(batch: FlowBatch, *, padded: bool = True) -> tuple[Tensor | None, ...]:
    """A batch as the net's arguments; `padded` False leaves the lengths out, as for full rows."""
    lengths = torch.tensor(batch.token_lengths) if padded else None
    return (
        torch.tensor(batch.tokens), lengths, torch.tensor(batch.prompt_mel), torch.tensor(batch.noise),
        torch.tensor(batch.x_vector),
    )  # fmt: skip


def vocoder_inputs(batch: VocoderBatch, *, padded: bool = True) -> tuple[Tensor | None, ...]:
    """A batch as the net's arguments; `padded` False leaves the lengths out, as for full rows."""
    lengths = torch.tensor(batch.lengths) if padded else None
    return (
        torch.tensor(batch.mel), lengths, torch.tensor(batch.fixed_f0_hz), torch.tensor(batch.fixed_frames),
        torch.tensor(batch.phase_cycles), torch.tensor(batch.harmonic_cycles), torch.tensor(batch.noise),
    )  # fmt: skip
