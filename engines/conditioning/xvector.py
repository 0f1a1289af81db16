"""CAMPPlus: 16 kHz samples -> the x-vector that S3Gen is conditioned on.

It processes one recording at a time: padding would change its statistics over time.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from engines.audio import Samples, weighted_sums
from engines.model_spec import X_VECTOR_DIM, ModelSpec

RATE_HZ = 16_000
PREFIX = "speaker_encoder."  # of its tensors in S3Gen's file
_MEL_BANDS = 80
_HEAD_CHANNELS = 32
_BLOCKS = ((12, 1), (24, 2), (16, 2))  # layers and dilation of the three dense blocks
_BOTTLENECK = 4  # x growth
_CONTEXT_FRAMES = 100  # pooled by a layer's mask, besides the whole recording
_WINDOW_SAMPLES, _HOP_SAMPLES, _FFT_SAMPLES = 400, 160, 512
_LOWEST_HZ, _PREEMPHASIS = 20.0, 0.97


class _ResBlock(nn.Module):
    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, stride=(stride, 1), padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut.append(nn.Conv2d(channels, channels, 1, stride=(stride, 1), bias=False))
            self.shortcut.append(nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class _Head(nn.Module):
    """Convolutions over bands and frames. They reduce 80 bands to 10 and keep all frames."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, _HEAD_CHANNELS, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_HEAD_CHANNELS)
        self.layer1 = nn.Sequential(_ResBlock(_HEAD_CHANNELS, 2), _ResBlock(_HEAD_CHANNELS, 1))
        self.layer2 = nn.Sequential(_ResBlock(_HEAD_CHANNELS, 2), _ResBlock(_HEAD_CHANNELS, 1))
        self.conv2 = nn.Conv2d(_HEAD_CHANNELS, _HEAD_CHANNELS, 3, stride=(2, 1), padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(_HEAD_CHANNELS)

    def forward(self, fbank: torch.Tensor) -> torch.Tensor:
        """(B, 80, T) -> (B, 320, T)."""
        x = F.relu(self.bn1(self.conv1(fbank[:, None])))  # (B, 32, 80, T)
        x = F.relu(self.bn2(self.conv2(self.layer2(self.layer1(x)))))  # (B, 32, 10, T)
        return x.flatten(1, 2)


def _norm(channels: int, *, affine: bool = True, relu: bool = True) -> nn.Sequential:
    parts: list[tuple[str, nn.Module]] = [("batchnorm", nn.BatchNorm1d(channels, affine=affine))]
    return nn.Sequential(OrderedDict([*parts, ("relu", nn.ReLU())] if relu else parts))


class _MaskedConv(nn.Module):
    """A convolution whose output channels are weighted by their context (context-aware masking)."""

    def __init__(self, channels: int, out_channels: int, dilation: int) -> None:
        super().__init__()
        self.linear_local = nn.Conv1d(channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.linear1 = nn.Conv1d(channels, channels // 2, 1)
        self.linear2 = nn.Conv1d(channels // 2, out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, channels, T) -> (B, out_channels, T). The mask is constant within 100 frames."""
        pooled = F.avg_pool1d(x, _CONTEXT_FRAMES, stride=_CONTEXT_FRAMES, ceil_mode=True)  # (B, channels, segments)
        context = pooled + x.mean(dim=-1, keepdim=True)
        mask = torch.sigmoid(self.linear2(F.relu(self.linear1(context))))
        spread = mask.repeat_interleave(_CONTEXT_FRAMES, dim=-1)[..., : x.shape[-1]]
        local: torch.Tensor = self.linear_local(x)
        return local * spread


class _DenseLayer(nn.Module):
    def __init__(self, channels: int, growth: int, dilation: int) -> None:
        super().__init__()
        inner = _BOTTLENECK * growth
        self.nonlinear1 = _norm(channels)
        self.linear1 = nn.Conv1d(channels, inner, 1, bias=False)
        self.nonlinear2 = _norm(inner)
        self.cam_layer = _MaskedConv(inner, growth, dilation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        added: torch.Tensor = self.cam_layer(self.nonlinear2(self.linear1(self.nonlinear1(x))))
        return torch.cat((x, added), dim=1)


class _Affine(nn.Module):
    """A convolution of length 1 before or after a norm."""

    def __init__(self, linear: nn.Conv1d, nonlinear: nn.Sequential, *, norm_first: bool) -> None:
        super().__init__()
        self.linear, self.nonlinear, self._norm_first = linear, nonlinear, norm_first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.linear(self.nonlinear(x)) if self._norm_first else self.nonlinear(self.linear(x))
        return y


class _Statistics(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, T) -> (B, 2C, 1): mean and standard deviation over time."""
        return torch.cat((x.mean(dim=-1), x.std(dim=-1)), dim=-1)[..., None]


class XVectorEncoder(nn.Module):
    """CAM++ (Wang et al. 2023), as in 3D-Speaker. State dict: the `speaker_encoder.` tensors of S3Gen's file."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        channels, growth = spec.conditioning.xvector_init_channels, spec.conditioning.xvector_growth
        self.head = _Head()
        tdnn = nn.Conv1d(_HEAD_CHANNELS * _MEL_BANDS // 8, channels, 5, stride=2, padding=2, bias=False)
        self.xvector = nn.Sequential(OrderedDict([("tdnn", _Affine(tdnn, _norm(channels), norm_first=False))]))
        for number, (layers, dilation) in enumerate(_BLOCKS, start=1):
            names = [f"tdnnd{i + 1}" for i in range(layers)]
            dense = [_DenseLayer(channels + i * growth, growth, dilation) for i in range(layers)]
            self.xvector.add_module(f"block{number}", nn.Sequential(OrderedDict(zip(names, dense, strict=True))))
            channels += layers * growth
            halving = nn.Conv1d(channels, channels // 2, 1, bias=False)
            self.xvector.add_module(f"transit{number}", _Affine(halving, _norm(channels), norm_first=True))
            channels //= 2
        self.xvector.add_module("out_nonlinear", _norm(channels))
        self.xvector.add_module("stats", _Statistics())
        last = nn.Conv1d(2 * channels, X_VECTOR_DIM, 1, bias=False)
        closing = _norm(X_VECTOR_DIM, affine=False, relu=False)
        self.xvector.add_module("dense", _Affine(last, closing, norm_first=False))

    def forward(self, fbank: torch.Tensor) -> torch.Tensor:
        """(B, T, 80) filterbank, mean removed, 100 frames/s -> (B, 192)."""
        vector: torch.Tensor = self.xvector(self.head(fbank.transpose(1, 2)))
        return vector.squeeze(-1)

    @torch.inference_mode()
    def embed(self, samples: Samples) -> Samples:
        """Returns (192,), the x-vector of at least 400 samples at 16 kHz."""
        features = kaldi_fbank(samples)
        features -= features.mean(axis=0)
        device = next(self.parameters()).device
        vector: Samples = self(torch.from_numpy(features)[None].to(device))[0].cpu().numpy()
        return vector


def kaldi_fbank(samples: Samples) -> Samples:
    """Returns (frames, 80) log mel power of whole 25 ms frames, 100 frames/s: Kaldi's fbank features without dither."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW_SAMPLES)[::_HOP_SAMPLES]
    frames = frames - frames.mean(axis=1, keepdims=True)
    previous = np.concatenate((frames[:, :1], frames[:, :-1]), axis=1)
    window, filters = _kaldi_constants()
    spectrum = np.fft.rfft((frames - np.float32(_PREEMPHASIS) * previous) * window, n=_FFT_SAMPLES, axis=1)
    power = weighted_sums((spectrum.real**2 + spectrum.imag**2).astype(np.float32, copy=False), filters)
    levels: Samples = np.log(np.maximum(power, np.finfo(np.float32).eps))
    return levels


@lru_cache(maxsize=1)
def _kaldi_constants() -> tuple[Samples, Samples]:
    """Returns Povey's window (400,) and triangles (80, 257) equally spaced on Kaldi's mel scale, 20 Hz to 8 kHz."""
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW_SAMPLES) / (_WINDOW_SAMPLES - 1))) ** 0.85
    edges = np.linspace(_kaldi_mel(_LOWEST_HZ), _kaldi_mel(RATE_HZ / 2), _MEL_BANDS + 2)
    bins = _kaldi_mel(np.arange(_FFT_SAMPLES // 2) * RATE_HZ / _FFT_SAMPLES)[:, None]  # Kaldi omits the Nyquist bin
    step = edges[1] - edges[0]
    triangles = np.maximum(0.0, np.minimum((bins - edges[:-2]) / step, (edges[2:] - bins) / step))
    return window.astype(np.float32), np.pad(triangles.T, ((0, 0), (0, 1))).astype(np.float32)


def _kaldi_mel(hz: npt.NDArray[np.float64] | float) -> npt.NDArray[np.float64]:
    return 1127.0 * np.log1p(np.asarray(hz) / 700.0)


def expected_tensors(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """The names (without the prefix) and shapes of CAMPPlus's tensors in S3Gen's file."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in XVectorEncoder(spec).state_dict().items()}
