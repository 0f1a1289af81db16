"""Layers of the flow's encoder and CFM: masks made from lengths, attention, and convolutions over (B, T, C).

Lengths of None mean that every row is full, which saves the work of masking.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Added to the scores of keys in the pad. Finite and within float16: upstream's -1e10 is -inf there, and a folded
# 0 * -inf is NaN.
MASKED_SCORE = -1e4


def valid_frames(lengths: Tensor, frames: int) -> Tensor:
    """lengths (B,) -> (B, frames) bool, true before each row's end."""
    return torch.arange(frames, device=lengths.device)[None] < lengths[:, None]


def key_bias(lengths: Tensor | None, frames: int, dtype: torch.dtype) -> Tensor | None:
    """(B, 1, 1, frames), to be added to attention scores: 0 at a row's frames, very low in its pad."""
    if lengths is None:
        return None
    return (~valid_frames(lengths, frames)).to(dtype)[:, None, None] * MASKED_SCORE


def mask_frames(x: Tensor, lengths: Tensor | None) -> Tensor:
    """x (B, T, C), zeroed in the pad."""
    if lengths is None:
        return x
    return x * valid_frames(lengths, x.shape[1]).to(x.dtype)[..., None]


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Softmax attention: q (B, heads, Q, w), k and v (B, heads, T, w), bias added to the scores -> (B, heads, Q, w).

    For export it is written out: the exporter would scale queries and keys separately, and ONNX Runtime would then
    transpose all keys in memory instead of reading them transposed in the product.
    """
    if not torch.onnx.is_in_onnx_export():
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    mixed: Tensor = (scores if bias is None else scores + bias).softmax(-1) @ v
    return mixed


class FrameConv(nn.Conv1d):
    """A convolution over the frames of (B, T, C), as one matrix product of stacked neighbours; keeps T.

    The weight is a Conv1d's, (out, in, taps). `lookahead` of the taps lie to the right, the rest are causal.
    """

    def __init__(self, in_channels: int, out_channels: int, taps: int, lookahead: int = 0) -> None:
        super().__init__(in_channels, out_channels, taps)
        self.lookahead = lookahead

    def forward(self, x: Tensor) -> Tensor:
        taps = self.kernel_size[0]
        return F.linear(stack_frames(x, taps, self.lookahead), self.weight.transpose(1, 2).flatten(1), self.bias)


def lay_out_taps(net: nn.Module) -> None:
    """Store the weights of a net's FrameConvs in the order in which they are multiplied, taps before channels.

    Otherwise each call copies them into it: some 170 copies in a window of S3Gen. The tensors keep their shape.
    """
    for module in net.modules():
        if isinstance(module, FrameConv):
            weight = module.weight.transpose(1, 2).contiguous().transpose(1, 2)
            module.weight = nn.Parameter(weight, requires_grad=False)


class Projections:
    """Several Linears of one input, computed as one product where `join_projections` has joined them."""

    joined: tuple[Tensor, Tensor | None] | None = None

    def linears(self) -> tuple[nn.Linear, ...]:
        """The layers, which keep upstream's names."""
        raise NotImplementedError

    def project(self, x: Tensor) -> Sequence[Tensor]:
        """x (..., in) -> (..., out) of each layer."""
        if self.joined is None:
            return [linear(x) for linear in self.linears()]
        return F.linear(x, *self.joined).chunk(len(self.linears()), dim=-1)


def join_projections(net: nn.Module) -> None:
    """Join queries, keys and values of a net's attention, where launching a product costs more than a small one does.

    A layer's weight becomes a part of the joined one. Call it on the device and in the precision of use.
    """
    for module in net.modules():
        if isinstance(module, Projections):
            linears = module.linears()
            weight = torch.cat([linear.weight for linear in linears]).detach()
            for linear, part in zip(linears, weight.chunk(len(linears)), strict=True):
                linear.weight = nn.Parameter(part, requires_grad=False)
            biases: list[Tensor] = [linear.bias for linear in linears if linear.bias is not None]
            module.joined = weight, torch.cat(biases).detach() if biases else None


def stack_frames(x: Tensor, taps: int, lookahead: int) -> Tensor:
    """(B, T, C) -> (B, T, taps * C): each frame with its neighbours, oldest first; zeros beyond the ends."""
    if taps == 1:
        return x
    frames = x.shape[1]
    padded = F.pad(x, (0, 0, taps - 1 - lookahead, lookahead))
    return torch.cat([padded[:, tap : tap + frames] for tap in range(taps)], dim=-1)
