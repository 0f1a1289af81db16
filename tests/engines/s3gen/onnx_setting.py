"""What the tests of exported graphs share: the tiny checkpoint, its exports, and batches of rows of any length."""

from __future__ import annotations

from functools import cache

import numpy as np
from torch import nn

from engines.checkpoints.checkpoint import Checkpoint, open_checkpoint
from engines.model_spec import MEL_FRAMES_PER_TOKEN, MEL_HOP_SAMPLES
from engines.s3gen.export.block_graphs import block_nets
from engines.s3gen.export.export import Export, ExportSettings, export, graphs_of
from engines.s3gen.export.graphs import Graph, load_nets
from engines.s3gen.runtime import FlowBatch, VocoderBatch


@cache
def checkpoint() -> Checkpoint:
    return open_checkpoint("random:tiny", cache_dir=None, device="cpu")


@cache
def nets() -> dict[str, nn.Module]:
    return load_nets(checkpoint()) | block_nets(checkpoint())


def graphs() -> dict[str, Graph]:
    return graphs_of(checkpoint().spec)


def tiny_export(precision: str = "fp32") -> Export:
    """All graphs, padded; made once per state of the code and kept beside the checkpoint."""
    return _tiny_export(precision)


@cache
def _tiny_export(precision: str) -> Export:
    return export(checkpoint(), ExportSettings(tuple(graphs()), True, precision))


def flow_batch(lengths: list[int], *, prompt_tokens: int = 3, seed: int = 0) -> FlowBatch:
    rng = np.random.default_rng(seed)
    rows, most = len(lengths), max(lengths)
    frames = most * MEL_FRAMES_PER_TOKEN
    batch = FlowBatch(
        tokens=rng.integers(0, 6561, (rows, most)),
        token_lengths=np.array(lengths, np.int64),
        prompt_mel=np.zeros((rows, frames, 80), np.float32),
        noise=rng.standard_normal((rows, frames, 80), np.float32),
        x_vector=rng.standard_normal((rows, 192), np.float32),
    )
    batch.prompt_mel[:, : prompt_tokens * MEL_FRAMES_PER_TOKEN] = -4.0
    for row, length in enumerate(lengths):
        batch.tokens[row, length:] = 0
        batch.noise[row, length * MEL_FRAMES_PER_TOKEN :] = 0
    return batch


def vocoder_batch(lengths: list[int], *, seed: int = 0) -> VocoderBatch:
    """All of f0 is given, so that two implementations' waveforms can be compared sample by sample."""
    rng = np.random.default_rng(seed)
    rows, frames = len(lengths), max(lengths)
    batch = VocoderBatch(
        mel=(rng.standard_normal((rows, frames, 80)) * 2 - 5).astype(np.float32),
        lengths=np.array(lengths, np.int64),
        fixed_f0_hz=rng.uniform(80, 300, (rows, frames)).astype(np.float32),
        fixed_frames=np.array(lengths, np.int64),
        phase_cycles=rng.random(rows, np.float32),
        harmonic_cycles=rng.random((rows, 9), np.float32),
        noise=rng.standard_normal((rows, MEL_HOP_SAMPLES * frames), np.float32),
    )
    for row, length in enumerate(lengths):
        batch.mel[row, length:] = 0
        batch.noise[row, length * MEL_HOP_SAMPLES :] = 0
    return batch
