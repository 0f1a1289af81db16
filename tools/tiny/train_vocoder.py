"""The vocoder learns mel -> waveform with the teacher's own pitch, and mel -> pitch beside it.

Most of its mels are the flow's, which are not quite real ones and all that it hears in use. Knows the engine's Vocoder
and spectral losses, which reach up to half the sample rate: what no loss hears becomes a tone there. Phase cannot be
known from a mel, so losses compare magnitudes.
"""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from tools.tiny.dataset import Stream
from tools.tiny.engine import (
    MEL_FRAMES_PER_TOKEN,
    MEL_HOP_SAMPLES,
    SAMPLE_RATE_HZ,
    SAMPLES_PER_TOKEN,
    Vocoder,
    mel_filterbank,
    vocoder_module,
)
from tools.tiny.train_flow import Flow, windows
from tools.tiny.trainer import Losses, halved, tensor

# Samples of the windows; hops are a quarter. Windows shorter than a period of the pitch judge how sharp its pulses are.
_RESOLUTIONS = (128, 256, 512, 1024, 2048)
_BANDS = {256: 40, 512: 80, 1024: 80, 2048: 160}  # mel bands of windows that are long enough for them
_SPECTRAL, _MEL = 0.3, 6.0  # shares in the loss: formants, which mels show, matter more than single bins
_F0_SCALE_HZ = 100.0
_PROMPT_TOKENS, _CONTEXT_TOKENS = 40, 8  # around a crop of the flow's mel
F32 = npt.NDArray[np.float32]
_REAL_MELS = 0.3  # of all rows: prompts and other synthesisers have them


def differentiable() -> None:
    """The engine's Snake works in place to save memory, which a backward pass cannot follow."""
    vocoder_module._snake = lambda w: w + torch.sin(w).square()


def init(net: Vocoder) -> Vocoder:
    """Start with a pitch in the middle and a quiet sound."""
    with torch.no_grad():
        net.f0_predictor.classifier.bias.fill_(100.0)
        net.f0_predictor.classifier.weight.mul_(100.0)
        net.m_source.l_linear.weight.copy_(torch.full((1, 9), 0.5))
        net.m_source.l_linear.bias.zero_()
        bias = net.conv_post.bias
        assert bias is not None
        bias[: len(bias) // 2].fill_(-4.0)
    return net


class VocoderTask:
    """flow: what makes mels; None while it cannot: all mels are real ones then."""

    def __init__(self, net: Vocoder, flow: Flow | None, streams: list[Stream], *, batch: int, tokens: int) -> None:
        differentiable()
        self._net, self._flow, self._streams, self._batch, self._tokens = net, flow, streams, batch, tokens
        self._windows = {size: torch.hann_window(size) for size in _RESOLUTIONS}
        self._filters = {
            size: torch.tensor(mel_filterbank(SAMPLE_RATE_HZ, size, bands, 0.0, SAMPLE_RATE_HZ / 2))
            for size, bands in _BANDS.items()
        }

    def losses(self, step: int) -> Losses:
        draw = np.random.default_rng([step, 1])
        torch.manual_seed(step)
        mel, f0_hz, target = self._crops(draw)
        waveform = synthesise(self._net, mel, f0_hz, half=True)
        predicted = self._net.f0_predictor(mel.transpose(1, 2), None)
        pitch = F.l1_loss(predicted / _F0_SCALE_HZ, f0_hz / _F0_SCALE_HZ)
        edge = 2 * MEL_HOP_SAMPLES  # a crop's first and last frames lack their context
        spectral, mel_distance = self._spectral(waveform[:, edge:-edge], target[:, edge:-edge])
        return {
            "loss": _SPECTRAL * spectral + _MEL * mel_distance + pitch,
            "stft": spectral,
            "mel": mel_distance,
            "f0": pitch,
        }

    def _crops(self, draw: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """mel (B, 2 N, 80), f0 (B, 2 N), samples (B, 960 N)."""
        if self._flow is None or draw.random() < _REAL_MELS:
            return self._real(draw)
        context = 2 * _CONTEXT_TOKENS
        made = windows(self._streams, draw, self._batch, _PROMPT_TOKENS + self._tokens + context, _PROMPT_TOKENS)
        inside = slice(_PROMPT_TOKENS + _CONTEXT_TOKENS, -_CONTEXT_TOKENS)
        mel = self._flow.mel(made)[:, MEL_FRAMES_PER_TOKEN * inside.start : MEL_FRAMES_PER_TOKEN * inside.stop]
        starts = made.starts + _CONTEXT_TOKENS
        f0_hz, samples = self._said(made.voices, starts)
        return mel, f0_hz, samples

    def _real(self, draw: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        voices = draw.integers(len(self._streams), size=self._batch)
        starts = draw.integers(len(self._streams[0].sounds) - self._tokens, size=self._batch)
        rows = [
            self._streams[v].mel[_span(s, self._tokens, MEL_FRAMES_PER_TOKEN)]
            for v, s in zip(voices, starts, strict=True)
        ]
        return tensor(np.stack(rows).astype(np.float32)), *self._said(voices, starts)

    def _said(self, voices: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """f0 and samples of each row's crop."""
        f0_hz, samples = [], []
        for voice, start in zip(voices, starts, strict=True):
            stream = self._streams[voice]
            f0_hz.append(stream.f0_hz[_span(start, self._tokens, MEL_FRAMES_PER_TOKEN)])
            samples.append(stream.samples[_span(start, self._tokens, SAMPLES_PER_TOKEN)])
        return tensor(np.stack(f0_hz)), tensor(np.stack(samples).astype(np.float32)) / 32768

    def _spectral(self, waveform: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        total = waveform.new_zeros(())
        mel_distance = total
        for size, window in self._windows.items():
            ours, theirs = (_magnitude(x, size, window) for x in (waveform, target))
            convergence = torch.linalg.norm(theirs - ours) / torch.linalg.norm(theirs)
            total = total + convergence + F.l1_loss(_log(ours), _log(theirs))
            if size in self._filters:
                bands = self._filters[size]
                mel_distance = mel_distance + F.l1_loss(_log(bands @ ours), _log(bands @ theirs))
        return total / len(_RESOLUTIONS), mel_distance / len(_BANDS)


def _span(start: int, tokens: int, each: int) -> slice:
    return slice(each * start, each * (start + tokens))


def _magnitude(x: Tensor, size: int, window: Tensor) -> Tensor:
    spectrum = torch.stft(x, size, size // 4, window=window, return_complex=True)
    return (torch.view_as_real(spectrum).square().sum(-1) + 1e-9).sqrt()


def synthesise(net: Vocoder, mel: Tensor, f0_hz: Tensor, *, half: bool = False) -> Tensor:
    """mel (B, T, 80), f0 (B, T) -> (B, 480 T), with random phase and noise."""
    rows, frames = f0_hz.shape
    cycles = torch.rand(rows, 9) - 0.5
    cycles[:, 0] = 0
    noise = torch.randn(rows, frames * MEL_HOP_SAMPLES)
    excitation = net.m_source(f0_hz, torch.rand(rows), cycles, noise)
    source = net.spectrum.analyse(excitation, None)
    with halved() if half else nullcontext():
        x, _ = net._filter(mel.transpose(1, 2), source, None)
    return net.spectrum.synthesise(vocoder_module._to_spectrum(x.float()), None)


@torch.no_grad()
def speak(net: Vocoder, mel: Tensor) -> F32:
    """mel (T, 80) -> samples (480 T,), with the vocoder's own pitch."""
    f0_hz = net.f0_predictor(mel.T[None], None)
    samples: F32 = synthesise(net, mel[None], f0_hz)[0].cpu().numpy()
    return samples


def _log(x: Tensor) -> Tensor:
    return x.clamp_min(1e-4).log()
