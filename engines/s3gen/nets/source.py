"""The vocoder's source: mel -> f0 -> the excitation that the filter shapes into speech.

HiFT's f0 predictor and neural source filter (upstream: f0_predictor, hifigan.SineGen), with every random draw and the
phase as inputs. Everything is float32: half precision would lose the phase.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.model_spec import MEL_BANDS, MEL_HOP_SAMPLES, SAMPLE_RATE_HZ
from engines.s3gen.nets.layers import valid_frames

HARMONICS = 9  # the fundamental and eight overtones
_VOICED_ABOVE_HZ = 10.0
_SINE_AMPLITUDE = 0.1
_VOICED_NOISE = 0.003
_UNVOICED_NOISE = _SINE_AMPLITUDE / 3
_PHASE_GRID = 4096.0  # per cycle


class F0Predictor(nn.Module):
    """Five convolutions and a head; sees five frames to either side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        sizes = [MEL_BANDS] + 4 * [channels]
        convs = {str(2 * i): nn.Conv1d(size, channels, 3, padding=1) for i, size in enumerate(sizes)}
        self.condnet = nn.ModuleDict(convs)
        self.classifier = nn.Linear(channels, 1)

    def forward(self, mel: Tensor, mask: Tensor | None) -> Tensor:
        """mel (B, 80, T), mask (B, 1, T) or None -> f0 (B, T) in Hz, never negative."""
        x = mel
        for conv in self.condnet.values():
            x = F.elu(conv(x if mask is None else x * mask))
        f0: Tensor = self.classifier(x.transpose(1, 2))
        return f0[..., 0].abs()


class Source(nn.Module):
    """Nine harmonics of f0 where it is voiced, noise everywhere, merged into one excitation."""

    _harmonic: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.l_linear = nn.Linear(HARMONICS, 1)
        self.register_buffer("_harmonic", torch.arange(1.0, HARMONICS + 1, device="cpu"), persistent=False)

    def forward(self, f0_hz: Tensor, phase_cycles: Tensor, harmonic_cycles: Tensor, noise: Tensor) -> Tensor:
        """f0_hz (B, T), phase_cycles (B,) at the first frame's start, harmonic_cycles (B, 9), noise (B, 480 T)
        standard normal -> excitation (B, 480 T).

        Upstream draws nine noises per sample under one envelope and merges them with the harmonics' weights; one
        noise times the weights' norm has the same distribution.
        """
        weights = self.l_linear.weight[0]
        voiced = (f0_hz > _VOICED_ABOVE_HZ).to(f0_hz.dtype)[..., None]  # (B, T, 1)
        cycles = _fraction(_sample_phase(f0_hz, phase_cycles))[..., None]  # (B, T, 480, 1)
        cycles = _fraction(cycles * self._harmonic + harmonic_cycles[:, None, None])
        tone = torch.sin(2 * math.pi * cycles) @ (_SINE_AMPLITUDE * weights)  # (B, T, 480)
        level = (_UNVOICED_NOISE + voiced * (_VOICED_NOISE - _UNVOICED_NOISE)) * torch.linalg.vector_norm(weights)
        hiss = level * noise.view(*f0_hz.shape, MEL_HOP_SAMPLES)
        return torch.tanh(tone * voiced + hiss + self.l_linear.bias).flatten(1)


def _sample_phase(f0_hz: Tensor, phase_cycles: Tensor) -> Tensor:
    """(B, T, 480) cycles of the fundamental: upstream's running sum over samples, restarted at each frame."""
    hop = torch.arange(1, MEL_HOP_SAMPLES + 1, device=f0_hz.device, dtype=f0_hz.dtype) / SAMPLE_RATE_HZ
    return frame_phase(f0_hz, phase_cycles)[..., None] + f0_hz[..., None] * hop


def frame_phase(f0_hz: Tensor, phase_cycles: Tensor) -> Tensor:
    """(B, T) cycles in [0, 1) at each frame's start, phase_cycles (B,) at the first.

    A float32 running sum drifts, so each frame's advance is cut in two: multiples of 1/4096 cycle, whose sum is
    exact for 4096 frames (82 s), and remainders so small that their sum rounds to below 1e-6.
    """
    advance = _fraction(f0_hz * MEL_HOP_SAMPLES / SAMPLE_RATE_HZ)
    coarse = torch.floor(advance * _PHASE_GRID) / _PHASE_GRID
    fine = advance - coarse
    before = _fraction(_sum_before(coarse)) + _sum_before(fine)
    return _fraction(before + phase_cycles[:, None])


def _sum_before(x: Tensor) -> Tensor:
    """(B, T): the sum of all earlier frames."""
    return torch.cumsum(x, dim=1) - x


def _fraction(x: Tensor) -> Tensor:
    return x - torch.floor(x)


def predicted_unless_fixed(predicted_hz: Tensor, fixed_hz: Tensor, fixed_frames: Tensor) -> Tensor:
    """(B, T): `fixed_hz` at each row's first `fixed_frames` (B,) frames, `predicted_hz` at the rest."""
    return torch.where(valid_frames(fixed_frames, predicted_hz.shape[1]), fixed_hz, predicted_hz)
