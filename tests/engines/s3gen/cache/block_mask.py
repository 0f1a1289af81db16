"""The flow under a block mask without any cache, in float64: slow and plain, what cached decoding has to equal.

All blocks lie in one row, [prompt][block 1 new][block 1 provisional][block 2 new]..., and are computed together. Which
token sees which, at what distance, and what stands before it in a convolution is written out for every pair of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.s3gen.nets import cfm, encoder
from engines.s3gen.nets.flow import Flow


@dataclass(frozen=True)
class Cell:
    """A token's (or later a mel frame's) place: its block (0 is the prompt), and its position, prompt first."""

    block: int
    position: int
    provisional: bool


class Layout:
    """Cells in a row, and for each pair of them what one is to the other."""

    def __init__(self, cells: list[Cell], starts: list[int], prompt: int, context: int) -> None:
        """`starts`: position of each block's first cell; `prompt` and `context` in cells."""
        self.cells, self.starts, self.prompt, self.context = cells, starts, prompt, context
        self._finals = {cell.position: i for i, cell in enumerate(cells) if not cell.provisional}
        self._own = {(cell.block, cell.position): i for i, cell in enumerate(cells)}

    def doubled(self) -> Layout:
        """Two mel frames for each token."""
        cells = [Cell(c.block, 2 * c.position + half, c.provisional) for c in self.cells for half in (0, 1)]
        return Layout(cells, [2 * start for start in self.starts], 2 * self.prompt, 2 * self.context)

    def sees(self, query: Cell, key: Cell) -> bool:
        if key.block == query.block:
            return True
        final_past = key.block < query.block and not key.provisional
        return final_past and (key.block == 0 or key.position >= self.starts[query.block] - self.context)

    def distance(self, query: Cell, key: Cell) -> int:
        """How far the key is behind the query once what the query's block does not see is left out."""
        return self._packed(query, query) - self._packed(query, key)

    def _packed(self, query: Cell, key: Cell) -> int:
        if key.block == 0:
            return key.position
        forgotten = max(0, self.starts[query.block] - self.context - self.prompt) if query.block else 0
        return key.position - forgotten

    def mask(self) -> Tensor:
        rows = [[0.0 if self.sees(q, k) else -torch.inf for k in self.cells] for q in self.cells]
        return torch.tensor(rows)

    def distances(self) -> Tensor:
        return torch.tensor([[self.distance(q, k) for k in self.cells] for q in self.cells])

    def neighbour(self, cell: Cell, offset: int) -> int | None:
        """Index of the cell that stands `offset` before (or, negative, after) it for a convolution."""
        own = self._own.get((cell.block, cell.position - offset))
        if own is not None or offset <= 0:
            return own  # ahead, a block sees itself only
        return self._finals.get(cell.position - offset)

    def neighbours(self, offsets: list[int]) -> Tensor:
        """(cells, offsets) indices; where there is none, the index after the last cell."""
        none = len(self.cells)
        found = [[self.neighbour(cell, offset) for offset in offsets] for cell in self.cells]
        return torch.tensor([[none if i is None else i for i in row] for row in found])


def layout(prompt_tokens: int, blocks: list[tuple[int, int]], context_tokens: int) -> Layout:
    """`blocks`: (new, provisional) tokens of each."""
    cells, starts = [Cell(0, i, False) for i in range(prompt_tokens)], [0]
    for index, (new, provisional) in enumerate(blocks):
        start = prompt_tokens + sum(n for n, _ in blocks[:index])
        starts.append(start)
        cells += [Cell(index + 1, start + i, i >= new) for i in range(new + provisional)]
    return Layout(cells, starts, prompt_tokens, context_tokens)


@torch.inference_mode()
def flow_under_mask(
    flow: Flow, cells: Layout, tokens: Tensor, prompt_mel: Tensor, noise: Tensor, x_vector: Tensor
) -> Tensor:
    """tokens (n,), prompt_mel and noise (2n, 80), one for each cell -> mel (2n, 80). Turns `flow` to float64."""
    encode = flow.double().encoder
    prompt_mel, noise, x_vector = prompt_mel.double(), noise.double(), x_vector.double()
    conformer = encode.encoder
    x = conformer.embed(encode.input_embedding(tokens))
    look = conformer.pre_lookahead_layer
    ahead = F.leaky_relu(_convolve(look.conv1, x, cells, [0, -1, -2, -3]))
    x = x + _convolve(look.conv2, ahead, cells, [2, 1, 0])
    for layer in conformer.encoders:
        x = _conform(cast(encoder._Layer, layer), x, cells)
    frames = cells.doubled()
    x = conformer.up_embed(_convolve(conformer.up_layer.conv, x.repeat_interleave(2, 0), frames, [4, 3, 2, 1, 0]))
    for layer in conformer.up_encoders:
        x = _conform(cast(encoder._Layer, layer), x, frames)
    mu = encode.encoder_proj(conformer.after_norm(x))
    speaker = encode.spk_embed_affine_layer(F.normalize(x_vector, dim=0)).expand_as(mu)
    mel, net = noise, flow.solver.estimator
    for t, r in pairwise(flow.solver.times):
        velocity = _velocity(net, torch.cat([mel, mu, speaker, prompt_mel], -1), (t, r), frames)
        if net.guided_steps:
            nothing = torch.zeros_like(mel)
            unconditional = _velocity(net, torch.cat([mel, nothing, nothing, nothing], -1), (t, r), frames)
            velocity = 1.7 * velocity - 0.7 * unconditional
        mel = mel + (r - t) * velocity
    return mel


def _convolve(conv: nn.Module, x: Tensor, cells: Layout, offsets: list[int]) -> Tensor:
    weight, bias = cast(Tensor, conv.weight), cast(Tensor, conv.bias)  # (out, in, taps)
    padded = torch.cat([x, x.new_zeros(1, x.shape[1])])
    return torch.einsum("ntc,oct->no", padded[cells.neighbours(offsets)], weight) + bias


def _conform(layer: encoder._Layer, x: Tensor, cells: Layout) -> Tensor:
    attention, y = layer.self_attn, layer.norm_mha(x)
    heads, width = attention.heads, attention.head_width
    q, k, v = (
        linear(y).view(-1, heads, width) for linear in (attention.linear_q, attention.linear_k, attention.linear_v)
    )
    distances = cells.distances()
    reach = int(distances.abs().max()) + 1
    table = attention.linear_pos(encoder.sinusoids(reach, heads * width, x)).view(
        -1, heads, width
    )  # row: reach - 1 - d
    content = torch.einsum("qhd,khd->hqk", q + attention.pos_bias_u, k)
    position = torch.einsum("qhd,qkhd->hqk", q + attention.pos_bias_v, table[reach - 1 - distances])
    weights = ((content + position) / np.sqrt(width) + cells.mask()).softmax(-1)
    x = x + attention.linear_out(torch.einsum("hqk,khd->qhd", weights, v).flatten(1))
    return x + layer.feed_forward(layer.norm_ff(x))


def _velocity(net: cfm.Estimator, h: Tensor, times: tuple[float, float], frames: Layout) -> Tensor:
    time = net._time(torch.tensor([times[0]]), torch.tensor([times[1]]), h.dtype)

    def conv(module: nn.Module, x: Tensor) -> Tensor:
        return _convolve(module, x, frames, [2, 1, 0])

    def block(part: cfm._Block, x: Tensor) -> Tensor:
        return F.mish(part.norm(conv(part.block["0"], x)))

    def mix(stage: nn.Module, x: Tensor) -> Tensor:
        residual, blocks = list(cast(cfm._Stage, stage))[:2]
        residual = cast(cfm._Residual, residual)
        y = block(residual.block2, block(residual.block1, x) + residual.mlp["1"](time)) + residual.res_conv(x[None])[0]
        for part in cast(nn.ModuleList, blocks):
            y = _transform(cast(cfm._Transformer, part), y, frames)
        return y

    down, up = cast(cfm._Stage, net.down_blocks[0]), cast(cfm._Stage, net.up_blocks[0])
    skip = mix(down, h)
    h = conv(down[2], skip)
    for stage in net.mid_blocks:
        h = mix(stage, h)
    h = conv(up[2], mix(up, torch.cat([h, skip], -1)))
    return cast(Tensor, net.final_proj(block(net.final_block, h)[None])[0])


def _transform(part: cfm._Transformer, x: Tensor, frames: Layout) -> Tensor:
    attention, y = part.attn1, part.norm1(x)
    q, k, v = (
        linear(y).view(len(y), attention.heads, -1) for linear in (attention.to_q, attention.to_k, attention.to_v)
    )
    scores = torch.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[-1]) + frames.mask()
    mixed = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).flatten(1)
    x = x + attention.to_out[0](mixed)
    return x + part.ff(part.norm3(x))
