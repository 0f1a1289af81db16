"""The flow's encoder: speech tokens and an x-vector -> the CFM's conditions.

A conformer with ESPnet's relative positions (upstream: transformer.upsample_encoder), under the same weight names. Rows
may end at different lengths: nothing leaks from the pad into a row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.model_spec import MEL_BANDS, MEL_FRAMES_PER_TOKEN, SPEECH_CODES, X_VECTOR_DIM, FlowSpec
from engines.s3gen.nets.layers import FrameConv, Projections, attend, key_bias, mask_frames

LOOKAHEAD_TOKENS = 3
_LAYER_NORM_EPS = 1e-12

# One tensor (heads, head width, 2 T) per layer, lower layers first; T doubles at the upper ones.
Positions = Sequence[Tensor]


class TokenEncoder(nn.Module):
    """Embedding, conformer at 25 Hz, upsampling, conformer at 50 Hz, projection to mel bands."""

    def __init__(self, spec: FlowSpec) -> None:
        super().__init__()
        self.input_embedding = nn.Embedding(SPEECH_CODES, spec.width)
        self.spk_embed_affine_layer = nn.Linear(X_VECTOR_DIM, MEL_BANDS)
        self.encoder = _Conformer(spec)
        self.encoder_proj = nn.Linear(spec.width, MEL_BANDS)

    def forward(
        self, tokens: Tensor, token_lengths: Tensor | None, x_vector: Tensor, positions: Positions | None = None
    ) -> tuple[Tensor, Tensor]:
        """tokens (B, N) speech tokens, token_lengths (B,) or None if all rows are full, x_vector (B, 192)
        -> mu (B, 2N, 80), zero in the pad, and speaker (B, 80).

        `positions` is `project_positions(N)`, for callers that keep it between calls.
        """
        if positions is None:
            positions = self.project_positions(tokens.shape[1])
        hidden = self.encoder(self.input_embedding(tokens), token_lengths, positions)
        speaker = F.normalize(x_vector, dim=1).to(hidden.dtype)
        frame_lengths = None if token_lengths is None else token_lengths * MEL_FRAMES_PER_TOKEN
        return mask_frames(self.encoder_proj(hidden), frame_lengths), self.spk_embed_affine_layer(speaker)

    def project_positions(self, tokens: int) -> Positions:
        """Every layer's projected relative positions for windows of `tokens` tokens."""
        return self.encoder.project_positions(tokens)

    def attend_in_blocks(self, frames: int) -> None:
        """Compute attention for `frames` queries at a time: less memory and work on a CPU, but its loop cannot be
        exported."""
        for module in self.modules():
            if isinstance(module, _RelativeAttention):
                module.block_frames = frames


class _Conformer(nn.Module):
    def __init__(self, spec: FlowSpec) -> None:
        super().__init__()
        self.embed = _Embed(spec.width)
        self.pre_lookahead_layer = _Lookahead(spec.width)
        self.encoders = nn.ModuleList([_Layer(spec) for _ in range(spec.encoder_layers)])
        self.up_layer = _Upsample(spec.width)
        self.up_embed = _Embed(spec.width)
        self.up_encoders = nn.ModuleList([_Layer(spec) for _ in range(spec.up_layers)])
        self.after_norm = nn.LayerNorm(spec.width)

    def forward(self, x: Tensor, lengths: Tensor | None, positions: Positions) -> Tensor:
        x = self.pre_lookahead_layer(self.embed(x), lengths)
        x = _run(self.encoders, x, lengths, positions[: len(self.encoders)])
        x = self.up_embed(self.up_layer(x))  # (B, 2N, width) from here on
        lengths = None if lengths is None else lengths * MEL_FRAMES_PER_TOKEN
        x = _run(self.up_encoders, x, lengths, positions[len(self.encoders) :])
        normed: Tensor = self.after_norm(x)
        return normed

    def project_positions(self, tokens: int) -> Positions:
        width, like = self.after_norm.normalized_shape[0], self.after_norm.weight
        lower = sinusoids(tokens, width, like)
        upper = sinusoids(tokens * MEL_FRAMES_PER_TOKEN, width, like)
        layers = [(layer, lower) for layer in self.encoders] + [(layer, upper) for layer in self.up_encoders]
        return [cast(_Layer, layer).self_attn.project_positions(table) for layer, table in layers]


def _run(layers: nn.ModuleList, x: Tensor, lengths: Tensor | None, positions: Positions) -> Tensor:
    bias = key_bias(lengths, x.shape[1], x.dtype)
    for layer, keys in zip(layers, positions, strict=True):
        x = layer(x, keys, bias)
    return x


def sinusoids(frames: int, width: int, like: Tensor) -> Tensor:
    """(2 x frames, width): the encoding of relative position frames - 1 - c in row c, in the dtype of `like`.

    Of the 2 x frames positions the last is never used; it makes the shift a plain view (see `_shifted`).
    """
    position = torch.arange(frames - 1, -frames - 1, -1, device=like.device, dtype=torch.float32)
    rate = torch.arange(0, width, 2, device=like.device, dtype=torch.float32) * -(math.log(10000.0) / width)
    angle = position[:, None] * rate.exp()
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).to(like.dtype)


class _Embed(nn.Module):
    """Linear, layer norm, and the factor sqrt(width) that upstream's positional encoding brings."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width))
        self.scale = math.sqrt(width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(x)
        return y * self.scale


class _Lookahead(nn.Module):
    """The encoder's only view of the future besides attention: three tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = FrameConv(width, width, LOOKAHEAD_TOKENS + 1, lookahead=LOOKAHEAD_TOKENS)
        self.conv2 = FrameConv(width, width, 3)

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        # The embedding's bias fills the pad, and the convolution must see zeros behind a row's true end.
        ahead = F.leaky_relu(self.conv1(mask_frames(x, lengths)))
        y: Tensor = x + self.conv2(ahead)
        return y


class _Upsample(nn.Module):
    """Every frame twice, then a causal convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = FrameConv(width, width, 2 * MEL_FRAMES_PER_TOKEN + 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x[:, :, None].expand(-1, -1, MEL_FRAMES_PER_TOKEN, -1).flatten(1, 2))
        return y


class _Layer(nn.Module):
    def __init__(self, spec: FlowSpec) -> None:
        super().__init__()
        self.self_attn = _RelativeAttention(spec.width, spec.heads)
        self.feed_forward = _FeedForward(spec.width, spec.feed_forward)
        self.norm_mha = nn.LayerNorm(spec.width, eps=_LAYER_NORM_EPS)
        self.norm_ff = nn.LayerNorm(spec.width, eps=_LAYER_NORM_EPS)

    def forward(self, x: Tensor, positions: Tensor, bias: Tensor | None) -> Tensor:
        x = x + self.self_attn(self.norm_mha(x), positions, bias)
        y: Tensor = x + self.feed_forward(self.norm_ff(x))
        return y


class _FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w_1 = nn.Linear(width, hidden)
        self.w_2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.w_2(F.silu(self.w_1(x)))
        return y


class _RelativeAttention(nn.Module, Projections):
    """Transformer-XL's attention: content and relative position (https://arxiv.org/abs/1901.02860, section 3.3)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.block_frames: int | None = None  # queries at once; None: all, as export needs
        self.linear_q = nn.Linear(width, width)
        self.linear_k = nn.Linear(width, width)
        self.linear_v = nn.Linear(width, width)
        self.linear_out = nn.Linear(width, width)
        self.linear_pos = nn.Linear(width, width, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(heads, self.head_width))
        self.pos_bias_v = nn.Parameter(torch.zeros(heads, self.head_width))

    def linears(self) -> tuple[nn.Linear, ...]:
        return self.linear_q, self.linear_k, self.linear_v

    def project_positions(self, table: Tensor) -> Tensor:
        """table (2 T, width) -> (heads, head width, 2 T)."""
        projected: Tensor = self.linear_pos(table)
        return projected.view(-1, self.heads, self.head_width).permute(1, 2, 0)

    def forward(self, x: Tensor, positions: Tensor, bias: Tensor | None) -> Tensor:
        # (B, T, heads, head width) each
        q, k, v = (part.view(*x.shape[:2], self.heads, self.head_width) for part in self.project(x))
        by_content = (q + self.pos_bias_u).transpose(1, 2)
        by_position = ((q + self.pos_bias_v) * self.head_width**-0.5).transpose(1, 2)
        k, v = k.transpose(1, 2), v.transpose(1, 2)
        if self.block_frames is None:
            mixed = _attend(by_content, k, v, by_position @ positions, bias)
        else:
            mixed = self._attend_in_blocks(by_content, k, v, by_position, positions, bias)
        y: Tensor = self.linear_out(mixed.transpose(1, 2).flatten(2))
        return y

    def _attend_in_blocks(
        self, by_content: Tensor, k: Tensor, v: Tensor, by_position: Tensor, positions: Tensor, bias: Tensor | None
    ) -> Tensor:
        """A block of queries at a time: each needs little more than half of the relative positions, and memory grows
        with the length instead of its square."""
        assert self.block_frames is not None
        frames = k.shape[2]
        blocks = []
        for start in range(0, frames, self.block_frames):
            stop = min(start + self.block_frames, frames)
            seen = positions[..., frames - stop : 2 * frames - start]
            scores = by_position[:, :, start:stop] @ seen
            blocks.append(_attend(by_content[:, :, start:stop], k, v, scores, bias))
        return torch.cat(blocks, dim=2)


def _attend(q: Tensor, k: Tensor, v: Tensor, position_scores: Tensor, bias: Tensor | None) -> Tensor:
    """q (B, H, Q, D), k and v (B, H, T, D), position_scores (B, H, Q, T + Q) -> (B, H, Q, D)."""
    scores = _shifted(position_scores)
    if bias is not None:
        scores = scores + bias
    return attend(q, k, v, scores)


def _shifted(scores: Tensor) -> Tensor:
    """(B, H, Q, T + Q), column c of row i for key c + i - (Q - 1), -> (B, H, Q, T), column j for key j.

    Each row drops one column less on its left than the row above. Dropping the first Q - 1 values of the flat tensor
    and reading rows of T + Q - 1 therefore aligns the keys without a copy.
    """
    queries, columns = scores.shape[2], scores.shape[3]
    flat = scores.flatten(2)[..., queries - 1 : -1]
    return flat.view(*scores.shape[:3], columns - 1)[..., : columns - queries]


class PositionCache:
    """Keeps the projected positions between calls, for any length up to the longest seen.

    Relative positions of a short window are the middle of a longer one's, so one set serves all. Projecting them costs
    a fifth of the encoder's other matrix products.
    """

    _STEP_TOKENS = 64

    def __init__(self, encoder: TokenEncoder) -> None:
        self._encoder = encoder
        self._tokens = 0
        self._longest: Positions = ()

    def get(self, tokens: int) -> Positions:
        """As `project_positions(tokens)`."""
        return [_middle(keys, tokens * keys.shape[-1] // self._tokens) for keys in self.covering(tokens)]

    def covering(self, tokens: int) -> Positions:
        """As `project_positions` for `tokens` or more; the same tensors until a call needs more."""
        if tokens > self._tokens:
            self._longest = ()  # free it before the larger set is made
            self._tokens = -(-tokens // self._STEP_TOKENS) * self._STEP_TOKENS
            self._longest = [keys.contiguous() for keys in self._encoder.project_positions(self._tokens)]
        return self._longest


def _middle(keys: Tensor, count: int) -> Tensor:
    start = (keys.shape[-1] - count) // 2
    return keys[..., start : start + count]
