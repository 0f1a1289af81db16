"""The CFM's transformer blocks and residual convolutions on compiled kernels.

Every compiled stage is compared with the one that it replaces first, as any runtime is before it serves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from engines.kernels.causal_residual import CausalResidual, Convolution, State
from engines.kernels.causal_residual import Row as ResidualRow
from engines.kernels.library import MISSING, disagreement, fit_amx, simd_widths
from engines.kernels.transformer import Dense, KVRows, Row, Stack, Transformer, computable
from engines.s3gen.nets import cfm
from engines.s3gen.nets.layers import FrameConv

_TRIAL_FRAMES = 53  # several blocks of rows, and an end within one


def compile_transformers(net: cfm.Estimator) -> str | None:
    """Replace the transformer blocks of a float32 estimator on the CPU by compiled ones.

    If they are not installed, do not fit or compute something else, nothing changes and the reason is returned.
    """
    stages = _stages(net)
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


def _stages(net: cfm.Estimator) -> list[cfm._Stage]:
    return [cast(cfm._Stage, stage) for stage in (*net.down_blocks, *net.mid_blocks, *net.up_blocks)]


def compile_residuals(net: cfm.Estimator) -> str | None:
    """Replace the residual convolutions of a float32 estimator by those on AMX, where this CPU has it.

    If they compute something else, nothing changes and the reason is returned.
    """
    residuals = [cast(cfm._Residual, stage[0]) for stage in _stages(net)]
    if not all(fit_amx(*residual.res_conv.weight.shape[:2]) for residual in residuals):
        return None
    made = [compiled_residual(residual, torch.get_num_threads()) for residual in residuals]
    for residual, replacement in zip(residuals, made, strict=True):
        if why := disagreement("residual convolutions", _residual_error(replacement, residual)):
            return why
    for residual, replacement in zip(residuals, made, strict=True):
        residual.compiled_impl = replacement
        del residual.block1, residual.block2, residual.res_conv
    return None


def compiled_residual(residual: cfm._Residual, threads: int) -> CompiledResidual:
    """Raises ValueError as CausalResidual does."""
    skip = residual.res_conv
    return CompiledResidual(
        CausalResidual(
            _convolution(residual.block1),
            _convolution(residual.block2),
            (skip.weight[..., 0].numpy(), cast(Tensor, skip.bias).numpy()),
            threads,
        ),
        len(skip.weight),
    )


def _convolution(block: cfm._Block) -> Convolution:
    conv, norm = cast(FrameConv, block.block["0"]), block.norm
    return Convolution(*(part.numpy() for part in (conv.weight, cast(Tensor, conv.bias), norm.weight, norm.bias)))


class CompiledResidual:
    """A cfm.Residual."""

    def __init__(self, made: CausalResidual, channels: int) -> None:
        self._made, self._channels = made, channels

    def __call__(self, x: Tensor, time: Tensor, states: cfm.ConvStates | None = None) -> Tensor:
        """As cfm.Residual."""
        x, time = x.contiguous(), time.contiguous()
        rows, frames, inputs = x.shape
        out = x.new_empty(rows, frames, self._channels)
        nothing = x.new_zeros(max(inputs, self._channels))
        batch = [
            ResidualRow(
                x[row].data_ptr(),
                time[row].data_ptr(),
                out[row].data_ptr(),
                frames,
                State((nothing.data_ptr(),) * 2, 0) if states is None else _state(states, row),
            )
            for row in range(rows)
        ]
        work = x.new_empty(self._made.work_floats(batch))
        self._made.run(batch, work.data_ptr())
        return out


def _state(states: cfm.ConvStates, row: int) -> State:
    (first, first_after), (second, second_after) = states.first, states.second
    assert first.stride(1) == second.stride(1), "parts of one state"
    return State(
        (first[row].data_ptr(), second[row].data_ptr()),
        first.stride(1),
        (first_after[row].data_ptr(), second_after[row].data_ptr()),
        int(states.new[row]),
    )


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
    return disagreement("transformer blocks", _error(made, blocks, channels)) or made


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


@torch.inference_mode()
def _residual_error(made: CompiledResidual, residual: cfm._Residual) -> float:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, _TRIAL_FRAMES, residual.res_conv.weight.shape[1], generator=draw)
    mlp = cast(nn.Linear, residual.mlp["1"])
    time = torch.randn(1, mlp.in_features, generator=draw)
    expected = residual(x, time)
    return float((made(x, mlp(time)) - expected).abs().max() / expected.std())
