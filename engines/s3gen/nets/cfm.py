"""The flow's CFM: a U-Net that gives a velocity, and the Euler steps that follow it from noise to mel.

Two kinds, under upstream's weight names (models.s3gen.decoder). A meanflow net gives the velocity from time t to time r
in two steps. A guided one gives the velocity at time t; each of its ten steps computes a second, unconditional lane of
every row and leads away from it. The convolutions are causal and attention spans the whole window without positions, so
a row's pad can only leak through attention keys, where it is masked. Rows may be at different times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, cast, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.model_spec import MEANFLOW_STEPS, MEL_BANDS, FlowSpec
from engines.s3gen.nets.layers import FrameConv, Projections, attend, key_bias, mask_frames

EULER_TIMES = (0.0, 0.5, 1.0)  # of the distilled model; exact in every float format
assert len(EULER_TIMES) == MEANFLOW_STEPS + 1
GUIDANCE = 0.7  # upstream's inference_cfg_rate
_INPUT_CHANNELS = 4 * MEL_BANDS  # x, mu, speaker, prompt mel
_TIME_SCALE = 1000.0


def euler_times(guided_steps: int) -> tuple[float, ...]:
    """The times between which the steps go: those of the meanflow, or upstream's cosine schedule."""
    if not guided_steps:
        return EULER_TIMES
    return tuple(1 - math.cos(0.5 * math.pi * step / guided_steps) for step in range(guided_steps + 1))


class Estimator(nn.Module):
    """One call of the U-Net: 1 + mid_stages + 1 stages of residual convolutions and transformer blocks."""

    def __init__(self, spec: FlowSpec) -> None:
        super().__init__()
        channels = spec.channels
        self.guided_steps = spec.guided_steps
        self.time_mlp = _TimeMlp(4 * channels)
        if not spec.guided_steps:
            self.time_embed_mixer = nn.Linear(8 * channels, 4 * channels, bias=False)
        self.down_blocks = nn.ModuleList([_Stage(spec, _INPUT_CHANNELS, with_conv=True)])
        self.mid_blocks = nn.ModuleList([_Stage(spec, channels, with_conv=False) for _ in range(spec.mid_stages)])
        self.up_blocks = nn.ModuleList([_Stage(spec, 2 * channels, with_conv=True)])
        self.final_block = _Block(channels, channels)
        self.final_proj = FrameConv(channels, MEL_BANDS, 1)

    def forward(
        self, x: Tensor, mu: Tensor, speaker: Tensor, prompt_mel: Tensor, lengths: Tensor | None, t: Tensor, r: Tensor
    ) -> Tensor:
        """x, mu, prompt_mel (B, T, 80), speaker (B, 80), lengths (B,) frames or None if all rows are full,
        t and r (B,) float32 in [0, 1] -> velocity (B, T, 80), zero in the pad. A guided net does not read r.
        """
        dtype = self.final_block.norm.weight.dtype
        time = self._time(t, r, dtype)
        bias = key_bias(lengths, x.shape[1], dtype)
        spread = speaker[:, None].expand_as(mu)
        h = torch.cat([part.to(dtype) for part in (x, mu, spread, prompt_mel)], dim=-1)  # (B, T, 320)
        down, up = cast(_Stage, self.down_blocks[0]), cast(_Stage, self.up_blocks[0])
        skip = down.run(h, time, lengths, bias)
        h = down.conv(skip)
        for stage in self.mid_blocks:
            h = cast(_Stage, stage).run(h, time, lengths, bias)
        h = up.conv(up.run(torch.cat([h, skip], dim=-1), time, lengths, bias))
        return mask_frames(self.final_proj(self.final_block(h)), lengths)

    def _time(self, t: Tensor, r: Tensor, dtype: torch.dtype) -> Tensor:
        times = (t,) if self.guided_steps else (t, r)
        embedded = [self.time_mlp(_time_sinusoids(time).to(dtype)) for time in times]
        mixed: Tensor = embedded[0] if self.guided_steps else self.time_embed_mixer(torch.cat(embedded, dim=-1))
        return F.mish(mixed)  # (B, 4 x channels); every stage starts with the same activation


class EulerSolver(nn.Module):
    """Noise to mel in all steps of `estimator`."""

    def __init__(self, estimator: Estimator) -> None:
        super().__init__()
        self.estimator = estimator

    @property
    def times(self) -> tuple[float, ...]:
        """As euler_times."""
        return euler_times(self.estimator.guided_steps)

    def forward(self, noise: Tensor, mu: Tensor, speaker: Tensor, prompt_mel: Tensor, lengths: Tensor | None) -> Tensor:
        """Shapes as in Estimator.forward -> mel (B, T, 80) float32, zero in the pad."""
        x = noise.float()
        for t, r in pairwise(self.times):
            times = (x.new_full((x.shape[0],), t), x.new_full((x.shape[0],), r))
            x = x + (r - t) * step_velocity(self.estimator, x, mu, speaker, prompt_mel, lengths, *times)
        return mask_frames(x, lengths)


def step_velocity(
    net: Estimator,
    x: Tensor,
    mu: Tensor,
    speaker: Tensor,
    prompt_mel: Tensor,
    lengths: Tensor | None,
    t: Tensor,
    r: Tensor,
) -> Tensor:
    """The velocity that a step follows, float32; shapes as in Estimator.forward."""
    if not net.guided_steps:
        velocity: Tensor = net(x, mu, speaker, prompt_mel, lengths, t, r)
        return velocity.float()
    return guided(net(*in_lanes(x, mu, speaker, prompt_mel), twice(lengths), twice(t), twice(r)))


def in_lanes(x: Tensor, mu: Tensor, speaker: Tensor, prompt_mel: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """B rows -> 2B: the rows as they are, then the same x without anything that it is conditioned on."""
    mu, speaker, prompt_mel = (torch.cat([part, torch.zeros_like(part)]) for part in (mu, speaker, prompt_mel))
    return torch.cat([x, x]), mu, speaker, prompt_mel


@overload
def twice(rows: Tensor) -> Tensor: ...


@overload
def twice(rows: Tensor | None) -> Tensor | None: ...


def twice(rows: Tensor | None) -> Tensor | None:
    """(B, ...) -> (2B, ...), for the two lanes of each row; None stays None."""
    return None if rows is None else torch.cat([rows, rows])


def guided(velocity: Tensor) -> Tensor:
    """Velocities of both lanes (2B, T, 80) -> those away from the unconditional lane (B, T, 80) float32."""
    lanes = velocity.float().view(2, -1, *velocity.shape[1:])
    return (1 + GUIDANCE) * lanes[0] - GUIDANCE * lanes[1]


class _TimeMlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(_INPUT_CHANNELS, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, time: Tensor) -> Tensor:
        y: Tensor = self.linear_2(F.silu(self.linear_1(time)))
        return y


def _time_sinusoids(time: Tensor) -> Tensor:
    """(B,) -> (B, 320) in float32: half precision would be whole radians off."""
    half = _INPUT_CHANNELS // 2
    rate = torch.arange(half, device=time.device, dtype=torch.float32) * -(math.log(10000.0) / (half - 1))
    angle = _TIME_SCALE * time.float()[:, None] * rate.exp()
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class LayersKV(Protocol):
    """Cached keys and values of rows, read and filled in for several layers at a time."""

    def next_layers(self, layers: int) -> list[tuple[list[Tensor], Tensor]]:
        """For each row the next layers' cached parts (layers, t, 2w), keys before values, and where those of its own
        frames are to be written (layers, T, 2w)."""
        ...


class Transformers(Protocol):
    """A stage's transformer blocks: x (B, T, C) of rows that end at `lengths` -> (B, T, C), undefined in the pad.

    The result may overwrite x. With `cached` the frames attend to the cached keys and values as well.
    """

    def __call__(self, x: Tensor, lengths: Tensor | None, cached: LayersKV | None = None) -> Tensor: ...


@dataclass(frozen=True)
class ConvStates:
    """The last inputs before each of two convolutions (B, 2, C), and where those before a row's frame `new` (B,) are
    written."""

    first: tuple[Tensor, Tensor]
    second: tuple[Tensor, Tensor]
    new: Tensor


class Residual(Protocol):
    """Residual convolutions: x (B, T, C) and the embedded time (B, C') -> (B, T, C').

    Without `states` there are zeros before x.
    """

    def __call__(self, x: Tensor, time: Tensor, states: ConvStates | None = None) -> Tensor: ...


class _Stage(nn.ModuleList):
    """Upstream's unnamed triple: residual convolutions, transformer blocks and, at the U-Net's ends, a convolution."""

    compiled_impl: Transformers | None = None  # of the transformer blocks

    def __init__(self, spec: FlowSpec, in_channels: int, *, with_conv: bool) -> None:
        blocks = nn.ModuleList([_Transformer(spec) for _ in range(spec.blocks_per_stage)])
        super().__init__([_Residual(in_channels, spec.channels, 4 * spec.channels), blocks])
        if with_conv:
            self.append(FrameConv(spec.channels, spec.channels, 3))

    def run(self, x: Tensor, time: Tensor, lengths: Tensor | None, bias: Tensor | None) -> Tensor:
        x = self[0](x, time)
        if self.compiled_impl is not None:
            return self.compiled_impl(x, lengths)
        for block in cast(nn.ModuleList, self[1]):
            x = block(x, bias)
        return x

    def conv(self, x: Tensor) -> Tensor:
        y: Tensor = self[2](x)
        return y


class _Residual(nn.Module):
    compiled_impl: Residual | None = None

    def __init__(self, in_channels: int, channels: int, time_width: int) -> None:
        super().__init__()
        self.mlp = nn.ModuleDict({"1": nn.Linear(time_width, channels)})
        self.block1 = _Block(in_channels, channels)
        self.block2 = _Block(channels, channels)
        self.res_conv = FrameConv(in_channels, channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        spread = self.mlp["1"](time)
        if self.compiled_impl is not None:
            return self.compiled_impl(x, spread)
        y: Tensor = self.block2(self.block1(x) + spread[:, None]) + self.res_conv(x)
        return y


class _Block(nn.Module):
    """Causal convolution, layer norm over channels, mish."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.block = nn.ModuleDict({"0": FrameConv(in_channels, channels, 3), "2": nn.LayerNorm(channels)})

    @property
    def norm(self) -> nn.LayerNorm:
        norm = self.block["2"]
        assert isinstance(norm, nn.LayerNorm)
        return norm

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.block["0"](x))
        return F.mish(y)


class _Transformer(nn.Module):
    """Self-attention and a GELU feed-forward, each behind a layer norm."""

    def __init__(self, spec: FlowSpec) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(spec.channels)
        self.attn1 = _Attention(spec)
        self.norm3 = nn.LayerNorm(spec.channels)
        self.ff = _FeedForward(spec.channels)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        x = x + self.attn1(self.norm1(x), bias)
        y: Tensor = x + self.ff(self.norm3(x))
        return y


class _Attention(nn.Module, Projections):
    def __init__(self, spec: FlowSpec) -> None:
        super().__init__()
        self.heads, width = spec.cfm_heads, spec.cfm_heads * spec.cfm_head_dim
        self.to_q = nn.Linear(spec.channels, width, bias=False)
        self.to_k = nn.Linear(spec.channels, width, bias=False)
        self.to_v = nn.Linear(spec.channels, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, spec.channels)])

    def linears(self) -> tuple[nn.Linear, ...]:
        return self.to_q, self.to_k, self.to_v

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        q, k, v = (part.view(*x.shape[:2], self.heads, -1).transpose(1, 2) for part in self.project(x))
        mixed = attend(q, k, v, bias)
        y: Tensor = self.to_out[0](mixed.transpose(1, 2).flatten(2))
        return y


class _FeedForward(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.ModuleDict({"0": _Widen(channels), "2": nn.Linear(4 * channels, channels)})

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net["2"](F.gelu(self.net["0"](x)))
        return y


class _Widen(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 4 * channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.proj(x)
        return y
