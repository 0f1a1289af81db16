"""The CFM's transformer blocks on compiled kernels.

Every compiled stage is compared with the one that it replaces first, as any runtime is before it serves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from engines.kernels.library import MISSING, disagreement, simd_widths
from engines.kernels.transformer import Dense, KVRows, Row, Stack, Transformer, computable
from engines.s3gen.nets import cfm

_TRIAL_FRAMES = 53  # several blocks of rows, and an end within one


def compile_transformers(net: cfm.Estimator) -> str | None:
    """Replace the transformer blocks of a float32 estimator on the CPU by compiled ones.

    If they are not installed, do not fit or compute something else, nothing changes and the reason is returned.
    """
    stages = [cast(cfm._Stage, stage) for stage in (*net.down_blocks, *net.mid_blocks, *net.up_blocks)]
    made = []
    for stage in stages:
        replacement = _replacement(stage)
        if isinstance(replacement, str):
            return replacement
        made.append(replacement)
    for stage, stack in zip(stages, made, strict=True):
        stage.compiled_impl = CompiledStage(stack)
        stage[1] = nn.ModuleList()
    return None


class CompiledStage:
    """The cfm.Transformers of one stage."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def __call__(self, x: Tensor, lengths: Tensor | None, cached: cfm.LayersKV | None = None) -> Tensor:
        """As cfm.Transformers. Each row is computed to its own end, in place."""
        x = x.contiguous()
        rows, frames, _ = x.shape
        ends = [frames] * rows if lengths is None else lengths.tolist()
        kv: Sequence[tuple[list[Tensor], Tensor | None]] = [([], None)] * rows
        if cached is not None:
            kv = cached.next_layers(len(self._stack))
        batch = [
            Row(
                row.data_ptr(),
                end,
                [_rows(part) for part in parts if part.shape[1]],
                own if own is None else _rows(own),
            )
            for row, end, (parts, own) in zip(x, ends, kv, strict=True)
        ]
        work = x.new_empty(self._stack.work_floats(batch))
        self._stack.run(batch, work.data_ptr())
        return x


def _rows(part: Tensor) -> KVRows:
    """(layers, frames, 2w)"""
    layers, frames, both = part.shape
    assert part.stride(2) == 1
    assert frames == 1 or part.stride(1) == both, "a layer's keys and values lie together"
    return KVRows(part.data_ptr(), frames, part.stride(0) if layers > 1 else 0)


def _replacement(stage: cfm._Stage) -> Stack | str:
    """The compiled blocks, or why there are none."""
    blocks = [cast(cfm._Transformer, block) for block in cast(nn.ModuleList, stage[1])]
    heads = blocks[0].attn1.heads
    width, channels = blocks[0].attn1.to_q.weight.shape
    hidden = cast(cfm._Widen, blocks[0].ff.net["0"]).proj.weight.shape[0]
    if not simd_widths():
        return MISSING
    if not computable(channels, heads, width, hidden):
        return f"there are no compiled transformer blocks of {channels} channels and {heads} heads of {width // heads}"
    made = compiled(blocks, torch.get_num_threads())
    return disagreement("transformer", _error(made, blocks, channels)) or made


def compiled(blocks: list[cfm._Transformer], threads: int, simd_width: int | None = None) -> Stack:
    """Raises ValueError as Stack does."""
    return Stack([_weights(block) for block in blocks], blocks[0].attn1.heads, threads, simd_width)


def _weights(block: cfm._Transformer) -> Transformer:
    attention, ff = block.attn1, block.ff.net
    return Transformer(
        norm1=_dense(block.norm1),
        query=_dense(attention.to_q),
        key=_dense(attention.to_k),
        value=_dense(attention.to_v),
        out_proj=_dense(cast(nn.Linear, attention.to_out[0])),
        norm2=_dense(block.norm3),
        fc1=_dense(cast(cfm._Widen, ff["0"]).proj),
        fc2=_dense(cast(nn.Linear, ff["2"])),
    )


def _dense(layer: nn.Linear | nn.LayerNorm) -> Dense:
    weight = layer.weight.detach().numpy()
    bias = np.zeros(len(weight), np.float32) if layer.bias is None else layer.bias.detach().numpy()
    return Dense(weight, bias)


@torch.inference_mode()
def _error(made: Stack, blocks: list[cfm._Transformer], channels: int) -> float:
    x = torch.randn(1, _TRIAL_FRAMES, channels, generator=torch.Generator().manual_seed(0))
    expected = x
    for block in blocks:
        expected = block(expected, None)
    got = CompiledStage(made)(x.clone(), None)
    return float((got - expected).abs().max() / expected.std())
