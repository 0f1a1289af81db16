"""The flow block by block: the nets of flow.py, computed for a block of tokens alone and what came before remembered.

Within a block attention is bidirectional, over the past it is causal. The layers are encoder.py's and cfm.py's own;
here they are only walked through in another way. A block's last tokens may be provisional: they are seen by their own
block and leave nothing behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.model_spec import MEL_FRAMES_PER_TOKEN, FlowSpec
from engines.s3gen.cache.kv import Attended, KeysValues, Memory, Tails, Trailing, cfm_widths
from engines.s3gen.nets import cfm, encoder
from engines.s3gen.nets.cfm import EULER_TIMES, Estimator
from engines.s3gen.nets.encoder import PositionCache, Positions, TokenEncoder
from engines.s3gen.nets.flow import Flow
from engines.s3gen.nets.layers import attend, mask_frames


@dataclass(frozen=True)
class Blocks:
    """Rows [new tokens, provisional tokens, pad], and what was remembered of the tokens before each.

    tokens      (B, M) int64 codes
    lengths     (B,) int64 new + provisional tokens, or None when every row is full
    new         (B,) int64
    prompt_mel  (B, 2M, 80), zero except in a voice's prompt
    noise       (B, 2M, 80)
    speaker     (B, 80), `FlowBlocks.speaker`
    history     for each row the parts of its memory, oldest first
    tails       for each row
    """

    tokens: Tensor
    lengths: Tensor | None
    new: Tensor
    prompt_mel: Tensor
    noise: Tensor
    speaker: Tensor
    history: Sequence[Sequence[KeysValues]]
    tails: Sequence[Tails]


@dataclass(frozen=True)
class BlocksDone:
    """mel (B, 2M, 80) float32, zero in the pad; keys and values of all rows' tokens (`KeysValues.row` cuts one row's
    out), provisional and padded ones too; and the tails behind each row's new tokens."""

    mel: Tensor
    keys_values: KeysValues
    tails: list[Tails]


class FlowBlocks:
    """Calls the nets it is given on blocks. Holds no stream's state."""

    def __init__(self, flow: Flow, spec: FlowSpec, positions: PositionCache) -> None:
        self.spec = spec
        self._encoder, self._estimator, self._cfm = flow.encoder, flow.solver.estimator, flow.cfm
        self._positions = positions
        self.like = flow.encoder.encoder.after_norm.weight  # for device and dtype

    def speaker(self, x_vector: Tensor) -> Tensor:
        """(B, 192) -> (B, 80)."""
        projected: Tensor = self._encoder.spk_embed_affine_layer(F.normalize(x_vector, dim=1).to(self.like.dtype))
        return projected

    def advance(self, blocks: Blocks) -> BlocksDone:
        """Compute the blocks; changes nothing of what is remembered."""
        rows, tokens = blocks.tokens.shape
        done = KeysValues.empty(self.spec, tokens, self.like, rows)
        mu, token_tails, frame_tails = self._encode(blocks, done)
        with self._cfm:
            mel, step_tails = self._solve(blocks, mu, done)
        rows_tails = zip(token_tails, frame_tails, step_tails, strict=True)
        # in memory of their own: one stream must not keep its companions' tails alive
        return BlocksDone(mel, done, [Tails(*(part.clone() for part in row)) for row in rows_tails])

    def _encode(self, blocks: Blocks, done: KeysValues) -> tuple[Tensor, Tensor, Tensor]:
        lower = Attended([[part.lower for part in row] for row in blocks.history], done.lower)
        upper = Attended([[part.upper for part in row] for row in blocks.history], done.upper)
        width = [self.spec.width]
        token_trail = Trailing(torch.stack([row.tokens for row in blocks.tails]), width, blocks.new)
        frame_trail = Trailing(
            torch.stack([row.frames for row in blocks.tails]), width, blocks.new * MEL_FRAMES_PER_TOKEN
        )
        positions = self._positions.get(lower.longest + blocks.tokens.shape[1])
        mu = encode_block(
            self._encoder, blocks.tokens, blocks.lengths, positions, (lower, upper), (token_trail, frame_trail)
        )
        return mu, token_trail.left(), frame_trail.left()

    def _solve(self, blocks: Blocks, mu: Tensor, done: KeysValues) -> tuple[Tensor, Tensor]:
        """-> mel (B, 2M, 80) and tails (B, Euler steps, 2, channels)."""
        lengths = None if blocks.lengths is None else blocks.lengths * MEL_FRAMES_PER_TOKEN
        x, left = blocks.noise.float(), []
        for step, (t, r) in enumerate(pairwise(EULER_TIMES)):
            attended = Attended([[part.steps[step] for part in row] for row in blocks.history], done.steps[step])
            tails = torch.stack([row.steps[step] for row in blocks.tails])
            trail = Trailing(tails, cfm_widths(self.spec), blocks.new * MEL_FRAMES_PER_TOKEN)
            times = (x.new_full((len(x),), t), x.new_full((len(x),), r))
            velocity = block_velocity(
                self._estimator, (x, mu, blocks.speaker, blocks.prompt_mel), lengths, times, attended, trail
            )
            x = x + (r - t) * velocity.float()
            left.append(trail.left())
        return mask_frames(x, lengths), torch.stack(left, dim=1)


def encode_block(
    net: TokenEncoder,
    tokens: Tensor,
    lengths: Tensor | None,
    positions: Positions,
    attended: tuple[Memory, Memory],
    trails: tuple[Trailing, Trailing],
) -> Tensor:
    """As TokenEncoder.forward, for blocks -> mu (B, 2M, 80)."""
    conformer = net.encoder
    look = conformer.pre_lookahead_layer
    x = conformer.embed(net.input_embedding(tokens))
    # A block is all that its own lookahead can see: behind its last token there are zeros.
    ahead = F.leaky_relu(look.conv1(mask_frames(x, lengths)))
    x = x + trails[0].through(look.conv2, ahead)
    count = len(conformer.encoders)
    x = _conform(conformer.encoders, x, lengths, positions[:count], attended[0])
    doubled = x[:, :, None].expand(-1, -1, MEL_FRAMES_PER_TOKEN, -1).flatten(1, 2)  # (B, 2M, width) from here on
    x = conformer.up_embed(trails[1].through(conformer.up_layer.conv, doubled))
    lengths = None if lengths is None else lengths * MEL_FRAMES_PER_TOKEN
    x = _conform(conformer.up_encoders, x, lengths, positions[count:], attended[1])
    mu: Tensor = net.encoder_proj(conformer.after_norm(x))
    return mask_frames(mu, lengths)


def _conform(
    layers: nn.ModuleList, x: Tensor, lengths: Tensor | None, positions: Positions, attended: Memory
) -> Tensor:
    frames = x.shape[1]
    bias = attended.bias(lengths, frames, x.dtype)
    # Queries are the last of all keys, so of the positions the most distant future is never looked at.
    seen = attended.longest + 2 * frames
    for layer, keys in zip(cast("list[encoder._Layer]", list(layers)), positions, strict=True):
        x = x + _attend_relative(layer.self_attn, layer.norm_mha(x), keys[..., :seen], bias, attended)
        x = x + layer.feed_forward(layer.norm_ff(x))
    return x


def _attend_relative(
    attention: encoder._RelativeAttention, x: Tensor, positions: Tensor, bias: Tensor | None, attended: Memory
) -> Tensor:
    q = attention.linear_q(x).view(*x.shape[:2], attention.heads, attention.head_width)
    keys, values = attended.extend(attention.linear_k(x), attention.linear_v(x), attention.heads)
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
    attended: Memory,
    trail: Trailing,
) -> Tensor:
    """As Estimator.forward, for blocks; `inputs` are its x, mu, speaker and prompt_mel."""
    x, mu, speaker, prompt_mel = inputs
    dtype = net.final_block.norm.weight.dtype
    time = net._time(*times, dtype)
    bias = attended.bias(lengths, x.shape[1], dtype)
    h = torch.cat([part.to(dtype) for part in (x, mu, speaker[:, None].expand_as(mu), prompt_mel)], dim=-1)
    down, up = cast(cfm._Stage, net.down_blocks[0]), cast(cfm._Stage, net.up_blocks[0])
    skip = _mix(down, h, time, lengths, bias, attended, trail)
    h = trail.through(down.conv, skip)
    for stage in net.mid_blocks:
        h = _mix(cast(cfm._Stage, stage), h, time, lengths, bias, attended, trail)
    h = _mix(up, torch.cat([h, skip], dim=-1), time, lengths, bias, attended, trail)
    h = _block(net.final_block, trail.through(up.conv, h), trail)
    velocity: Tensor = net.final_proj(h)
    return velocity


def _mix(
    stage: cfm._Stage,
    x: Tensor,
    time: Tensor,
    lengths: Tensor | None,
    bias: Tensor | None,
    attended: Memory,
    trail: Trailing,
) -> Tensor:
    residual = cast(cfm._Residual, stage[0])
    h = _block(residual.block1, x, trail) + residual.mlp["1"](time)[:, None]
    x = _block(residual.block2, h, trail) + residual.res_conv(x)
    if stage.stand_in is not None:
        return stage.stand_in(x, lengths, cast(Attended, attended))
    for block in cast("list[cfm._Transformer]", list(cast(nn.ModuleList, stage[1]))):
        x = x + _attend(block.attn1, block.norm1(x), bias, attended)
        x = x + block.ff(block.norm3(x))
    return x


def _block(block: cfm._Block, x: Tensor, trail: Trailing) -> Tensor:
    return F.mish(block.norm(trail.through(block.block["0"], x)))


def _attend(attention: cfm._Attention, x: Tensor, bias: Tensor | None, attended: Memory) -> Tensor:
    q = attention.to_q(x).view(*x.shape[:2], attention.heads, -1).transpose(1, 2)  # (B, heads, T, head width)
    keys, values = attended.extend(attention.to_k(x), attention.to_v(x), attention.heads)
    mixed = attend(q, keys, values, bias)
    y: Tensor = attention.to_out[0](mixed.transpose(1, 2).flatten(2))
    return y
