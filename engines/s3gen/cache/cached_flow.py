"""The flow block by block: the nets of flow.py over a block of tokens, with the state of earlier tokens cached.

Within a block attention is bidirectional, over the past it is causal. The layers are encoder.py's and cfm.py's own;
only the order in which they are called is written here. A block's last tokens may be provisional: their own block sees
them, and they leave no state behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.model_spec import MEL_FRAMES_PER_TOKEN, FlowSpec
from engines.s3gen.cache.attention import KVView, RowsKVView
from engines.s3gen.cache.conv import ConvState, StreamingConv, cfm_widths
from engines.s3gen.cache.kv import KVBlock
from engines.s3gen.nets import cfm, encoder
from engines.s3gen.nets.cfm import Estimator, euler_times, guided, in_lanes, twice
from engines.s3gen.nets.encoder import PositionCache, Positions, TokenEncoder
from engines.s3gen.nets.flow import Flow
from engines.s3gen.nets.layers import attend, mask_frames


@dataclass(frozen=True)
class Blocks:
    """Rows [new tokens, provisional tokens, pad], and the state before each.

    tokens       (B, M) int64 speech tokens
    lengths      (B,) int64 new + provisional tokens, or None if every row is full
    new          (B,) int64
    prompt_mel   (B, 2M, 80), zero except in a voice's prompt
    noise        (B, 2M, 80)
    speaker      (B, 80), `FlowBlocks.speaker`
    cached       keys and values of earlier tokens
    conv_states  stacked
    """

    tokens: Tensor
    lengths: Tensor | None
    new: Tensor
    prompt_mel: Tensor
    noise: Tensor
    speaker: Tensor
    cached: CachedKeys
    conv_states: ConvState


class CachedKeys(Protocol):
    """The keys and values before a batch's blocks, as the views that its attention layers read."""

    def lower(self, block: Tensor) -> KVView:
        """The encoder's at 25 Hz; the layers write the block's own to `block`."""
        ...

    def upper(self, block: Tensor) -> KVView:
        """The encoder's at 50 Hz."""
        ...

    def step(self, index: int, block: Tensor) -> KVView:
        """The CFM's in one Euler step, of the rows' lanes as KVBlock has them."""
        ...


class RowsCachedKeys:
    """CachedKeys of rows whose parts lie apart and differ in length."""

    def __init__(self, cached: Sequence[Sequence[KVBlock]], lanes: int = 1) -> None:
        self._cached, self._lanes = cached, lanes

    def lower(self, block: Tensor) -> KVView:
        """As CachedKeys.lower."""
        return RowsKVView([[part.lower for part in row] for row in self._cached], block)

    def upper(self, block: Tensor) -> KVView:
        """As CachedKeys.upper."""
        return RowsKVView([[part.upper for part in row] for row in self._cached], block)

    def step(self, index: int, block: Tensor) -> KVView:
        """As CachedKeys.step."""
        lanes = range(self._lanes)
        return RowsKVView(
            [[part.steps[index, :, lane] for part in row] for lane in lanes for row in self._cached], block
        )


@dataclass(frozen=True)
class BlocksDone:
    """mel (B, 2M, 80) float32, zero in the pad; keys and values of all rows' tokens, provisional and padded ones
    included (`KVBlock.row` cuts out a row's); and the convolutions' states behind each row's new tokens, stacked."""

    mel: Tensor
    kv: KVBlock
    conv_states: ConvState


class FlowBlocks:
    """Computes blocks with the nets of a Flow. Holds no stream's state."""

    def __init__(self, flow: Flow, spec: FlowSpec, positions: PositionCache) -> None:
        self.spec = spec
        self._flow = flow
        self._encoder, self._estimator, self._cfm = flow.encoder, flow.solver.estimator, flow.cfm
        self._positions = positions
        self.like = flow.encoder.encoder.after_norm.weight  # for device and dtype

    def with_positions(self, positions: PositionCache) -> FlowBlocks:
        """The same nets with other memory for projected positions."""
        return FlowBlocks(self._flow, self.spec, positions)

    def speaker(self, x_vector: Tensor) -> Tensor:
        """(B, 192) -> (B, 80)."""
        projected: Tensor = self._encoder.spk_embed_affine_layer(F.normalize(x_vector, dim=1).to(self.like.dtype))
        return projected

    def advance(self, blocks: Blocks) -> BlocksDone:
        """Compute the blocks. The state before them does not change."""
        rows, tokens = blocks.tokens.shape
        kv = KVBlock.empty(self.spec, tokens, self.like, rows)
        mu, token_states, frame_states = self._encode(blocks, kv)
        with self._cfm:
            mel, step_states = self._solve(blocks, mu, kv)
        return BlocksDone(mel, kv, ConvState(token_states, frame_states, step_states))

    def _encode(self, blocks: Blocks, kv: KVBlock) -> tuple[Tensor, Tensor, Tensor]:
        """mu (B, 2M, 80), and the states of the lookahead's and the up-layer's convolution."""
        lower, upper = blocks.cached.lower(kv.lower), blocks.cached.upper(kv.upper)
        width = [self.spec.width]
        token_conv = StreamingConv(blocks.conv_states.tokens, width, blocks.new)
        frame_conv = StreamingConv(blocks.conv_states.frames, width, blocks.new * MEL_FRAMES_PER_TOKEN)
        positions = self._positions.get(lower.longest + blocks.tokens.shape[1])
        mu = encode_block(
            self._encoder, blocks.tokens, blocks.lengths, positions, (lower, upper), (token_conv, frame_conv)
        )
        return mu, token_conv.state(), frame_conv.state()

    def _solve(self, blocks: Blocks, mu: Tensor, kv: KVBlock) -> tuple[Tensor, Tensor]:
        """mel (B, 2M, 80), and the convolutions' states (B, Euler steps, lanes, 2, channels)."""
        lengths = None if blocks.lengths is None else blocks.lengths * MEL_FRAMES_PER_TOKEN
        x, states = blocks.noise.float(), []
        new, lanes = blocks.new * MEL_FRAMES_PER_TOKEN, self.spec.lanes
        for step, (t, r) in enumerate(pairwise(euler_times(self.spec.guided_steps))):
            view = blocks.cached.step(step, kv.steps[step])
            before = blocks.conv_states.steps[:, step].transpose(0, 1).flatten(0, 1)  # lanes become rows
            convs = StreamingConv(before, cfm_widths(self.spec), new.repeat(lanes))
            times = (x.new_full((len(x),), t), x.new_full((len(x),), r))
            velocity = block_velocity(
                self._estimator, (x, mu, blocks.speaker, blocks.prompt_mel), lengths, times, view, convs
            )
            x = x + (r - t) * velocity
            after = convs.state()
            states.append(after.view(lanes, -1, *after.shape[1:]).transpose(0, 1))
        return mask_frames(x, lengths), torch.stack(states, dim=1)


def encode_block(
    net: TokenEncoder,
    tokens: Tensor,
    lengths: Tensor | None,
    positions: Positions,
    kv: tuple[KVView, KVView],
    convs: tuple[StreamingConv, StreamingConv],
) -> Tensor:
    """As TokenEncoder.forward, for blocks -> mu (B, 2M, 80). `kv` and `convs` are those at 25 Hz and at 50 Hz."""
    conformer = net.encoder
    lookahead = conformer.pre_lookahead_layer
    x = conformer.embed(net.input_embedding(tokens))
    # The lookahead sees no further than its block: behind the last token there are zeros.
    ahead = F.leaky_relu(lookahead.conv1(mask_frames(x, lengths)))
    x = x + convs[0].step(lookahead.conv2, ahead)
    count = len(conformer.encoders)
    x = _run_conformer(conformer.encoders, x, lengths, positions[:count], kv[0])
    doubled = x[:, :, None].expand(-1, -1, MEL_FRAMES_PER_TOKEN, -1).flatten(1, 2)  # (B, 2M, width) from here on
    x = conformer.up_embed(convs[1].step(conformer.up_layer.conv, doubled))
    lengths = None if lengths is None else lengths * MEL_FRAMES_PER_TOKEN
    x = _run_conformer(conformer.up_encoders, x, lengths, positions[count:], kv[1])
    mu: Tensor = net.encoder_proj(conformer.after_norm(x))
    return mask_frames(mu, lengths)


def _run_conformer(
    layers: nn.ModuleList, x: Tensor, lengths: Tensor | None, positions: Positions, kv: KVView
) -> Tensor:
    frames = x.shape[1]
    bias = kv.bias(lengths, frames, x.dtype)
    # Queries are the last of all keys, so the positions of the most distant future are not needed.
    used = kv.longest + 2 * frames
    for layer, keys in zip(cast("list[encoder._Layer]", list(layers)), positions, strict=True):
        x = x + _attend_relative(layer.self_attn, layer.norm_mha(x), keys[..., :used], bias, kv)
        x = x + layer.feed_forward(layer.norm_ff(x))
    return x


def _attend_relative(
    attention: encoder._RelativeAttention, x: Tensor, positions: Tensor, bias: Tensor | None, kv: KVView
) -> Tensor:
    q = attention.linear_q(x).view(*x.shape[:2], attention.heads, attention.head_width)
    keys, values = kv.extend(attention.linear_k(x), attention.linear_v(x), attention.heads)
    by_content = (q + attention.pos_bias_u).transpose(1, 2)
    by_position = ((q + attention.pos_bias_v) * attention.head_width**-0.5).transpose(1, 2)
    mixed = encoder._attend(by_content, keys, values, by_position @ positions, bias)
    y: Tensor = attention.linear_out(mixed.transpose(1, 2).flatten(2))
    return y


def block_velocity(
    net: Estimator,
    inputs: tuple[Tensor, Tensor, Tensor, Tensor],
    lengths: Tensor | None,
    times: tuple[Tensor, Tensor],
    kv: KVView,
    convs: StreamingConv,
) -> Tensor:
    """As cfm.step_velocity, for blocks; `inputs` are its x, mu, speaker and prompt_mel.

    `kv` and `convs` are those of all lanes, as KVBlock has them.
    """
    if not net.guided_steps:
        return _lane_velocity(net, inputs, lengths, times, kv, convs).float()
    times = twice(times[0]), twice(times[1])
    return guided(_lane_velocity(net, in_lanes(*inputs), twice(lengths), times, kv, convs))


def _lane_velocity(
    net: Estimator,
    inputs: tuple[Tensor, Tensor, Tensor, Tensor],
    lengths: Tensor | None,
    times: tuple[Tensor, Tensor],
    kv: KVView,
    convs: StreamingConv,
) -> Tensor:
    """As Estimator.forward, for blocks."""
    x, mu, speaker, prompt_mel = inputs
    dtype = net.final_block.norm.weight.dtype
    time = net._time(*times, dtype)
    bias = kv.bias(lengths, x.shape[1], dtype)
    h = torch.cat([part.to(dtype) for part in (x, mu, speaker[:, None].expand_as(mu), prompt_mel)], dim=-1)
    down, up = cast(cfm._Stage, net.down_blocks[0]), cast(cfm._Stage, net.up_blocks[0])
    skip = _run_stage(down, h, time, lengths, bias, kv, convs)
    h = convs.step(down.conv, skip)
    for stage in net.mid_blocks:
        h = _run_stage(cast(cfm._Stage, stage), h, time, lengths, bias, kv, convs)
    h = _run_stage(up, torch.cat([h, skip], dim=-1), time, lengths, bias, kv, convs)
    h = _run_block(net.final_block, convs.step(up.conv, h), convs)
    velocity: Tensor = net.final_proj(h)
    return velocity


def _run_stage(
    stage: cfm._Stage,
    x: Tensor,
    time: Tensor,
    lengths: Tensor | None,
    bias: Tensor | None,
    kv: KVView,
    convs: StreamingConv,
) -> Tensor:
    x = _run_residual(cast(cfm._Residual, stage[0]), x, time, convs)
    if stage.compiled_impl is not None:
        return stage.compiled_impl(x, lengths, cast(RowsKVView, kv))
    for block in cast("list[cfm._Transformer]", list(cast(nn.ModuleList, stage[1]))):
        x = x + _attend(block.attn1, block.norm1(x), bias, kv)
        x = x + block.ff(block.norm3(x))
    return x


def _run_residual(residual: cfm._Residual, x: Tensor, time: Tensor, convs: StreamingConv) -> Tensor:
    spread = residual.mlp["1"](time)
    if residual.compiled_impl is not None:
        return residual.compiled_impl(x, spread, cfm.ConvStates(convs.take(), convs.take(), convs.new))
    h = _run_block(residual.block1, x, convs) + spread[:, None]
    y: Tensor = _run_block(residual.block2, h, convs) + residual.res_conv(x)
    return y


def _run_block(block: cfm._Block, x: Tensor, convs: StreamingConv) -> Tensor:
    return F.mish(block.norm(convs.step(block.block["0"], x)))


def _attend(attention: cfm._Attention, x: Tensor, bias: Tensor | None, kv: KVView) -> Tensor:
    q = attention.to_q(x).view(*x.shape[:2], attention.heads, -1).transpose(1, 2)  # (B, heads, T, head width)
    keys, values = kv.extend(attention.to_k(x), attention.to_v(x), attention.heads)
    mixed = attend(q, keys, values, bias)
    y: Tensor = attention.to_out[0](mixed.transpose(1, 2).flatten(2))
    return y
