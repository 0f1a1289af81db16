"""The vocoder learns mel -> waveform with the teacher's own pitch, and mel -> pitch beside it.

Most of its mels are the encoder's, which are smoother than real ones and all that it hears in use. Knows the engine's
Vocoder and spectral losses. Phase cannot be known from a mel, so losses compare magnitudes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from engines.audio import mel_filterbank
from engines.model_spec import MEL_FRAMES_PER_TOKEN, MEL_HOP_SAMPLES, SAMPLE_RATE_HZ, X_VECTOR_DIM
from engines.s3gen.nets import vocoder as vocoder_module
from engines.s3gen.nets.encoder import TokenEncoder
from engines.s3gen.nets.vocoder import Vocoder
from tools.tiny.codes import Ints
from tools.tiny.dataset import Stream
from tools.tiny.trainer import Losses, tensor
from tools.tiny.voices import SHARES

_RESOLUTIONS = (512, 1024, 2048)  # samples of the windows; hops are a quarter
_F0_SCALE_HZ = 100.0
_CONTEXT_TOKENS = 12  # around a crop, for the encoder's attention
F32 = npt.NDArray[np.float32]
_REAL_MELS = 0.25  # of all rows: prompts and other synthesisers have them


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
        bins = net.conv_post.bias.shape[0] // 2
        net.conv_post.bias[:bins].fill_(-4.0)
    return net


class VocoderTask:
    def __init__(self, net: Vocoder, encoder: TokenEncoder, streams: list[Stream], *, batch: int, tokens: int) -> None:
        differentiable()
        self._net, self._encoder, self._streams, self._batch, self._tokens = net, encoder, streams, batch, tokens
        self._windows = {size: torch.hann_window(size) for size in _RESOLUTIONS}
        self._filters = torch.tensor(mel_filterbank(SAMPLE_RATE_HZ, 1024, 80, 0.0, 8000.0))

    def losses(self, step: int) -> Losses:
        draw = np.random.default_rng([step, 1])
        mel, f0_hz, target = self._crops(draw)
        torch.manual_seed(step)
        waveform = synthesise(self._net, mel, f0_hz)
        predicted = self._net.f0_predictor(mel.transpose(1, 2), None)
        pitch = F.l1_loss(predicted / _F0_SCALE_HZ, f0_hz / _F0_SCALE_HZ)
        edge = 2 * MEL_HOP_SAMPLES  # a crop's first and last frames lack their context
        spectral, mel_distance = self._spectral(waveform[:, edge:-edge], target[:, edge:-edge])
        return {"loss": spectral + 2 * mel_distance + pitch, "stft": spectral, "mel": mel_distance, "f0": pitch}

    def _crops(self, draw: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """mel (B, 2 N, 80), f0 (B, 2 N), samples (B, 960 N)."""
        rows, sounds = [], []
        for _ in range(self._batch):
            stream = self._streams[draw.choice(len(self._streams), p=SHARES)]
            start = int(draw.integers(_CONTEXT_TOKENS, len(stream.sounds) - self._tokens - _CONTEXT_TOKENS))
            frames, hop = MEL_FRAMES_PER_TOKEN * np.array([start, start + self._tokens]), MEL_HOP_SAMPLES
            rows.append((
                stream.mel[slice(*frames)], stream.f0_hz[slice(*frames)], stream.samples[slice(*frames * hop)]
            ))  # fmt: skip
            sounds.append(stream.sounds[start - _CONTEXT_TOKENS : start + self._tokens + _CONTEXT_TOKENS])
        mel, f0_hz, samples = (tensor(np.stack(column).astype(np.float32)) for column in zip(*rows, strict=True))
        real = tensor(draw.random(self._batch) < _REAL_MELS)
        mel = torch.where(real[:, None, None], mel, self._encoded(np.stack(sounds)))
        return mel, f0_hz, samples / 32768

    @torch.no_grad()
    def _encoded(self, sounds: Ints) -> Tensor:
        mu, _ = self._encoder(tensor(sounds), None, torch.zeros(len(sounds), X_VECTOR_DIM))
        edge = MEL_FRAMES_PER_TOKEN * _CONTEXT_TOKENS
        return mu[:, edge:-edge]

    def _spectral(self, waveform: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        total = waveform.new_zeros(())
        mel_distance = total
        for size, window in self._windows.items():
            ours, theirs = (self._magnitude(x, size, window) for x in (waveform, target))
            convergence = torch.linalg.norm(theirs - ours) / torch.linalg.norm(theirs)
            total = total + convergence + F.l1_loss(_log(ours), _log(theirs))
            if size == 1024:
                mel_distance = F.l1_loss(_log(self._filters @ ours), _log(self._filters @ theirs))
        return total / len(_RESOLUTIONS), mel_distance

    def _magnitude(self, x: Tensor, size: int, window: Tensor) -> Tensor:
        spectrum = torch.stft(x, size, size // 4, window=window, return_complex=True)
        power = torch.view_as_real(spectrum).square().sum(-1)[:, : size * 8000 // SAMPLE_RATE_HZ]
        if size == 1024:
            power = F.pad(power, (0, 0, 0, size // 2 + 1 - power.shape[1]))
        return (power + 1e-9).sqrt()


def synthesise(net: Vocoder, mel: Tensor, f0_hz: Tensor) -> Tensor:
    """mel (B, T, 80), f0 (B, T) -> (B, 480 T), with random phase and noise."""
    rows, frames = f0_hz.shape
    cycles = torch.rand(rows, 9) - 0.5
    cycles[:, 0] = 0
    noise = torch.randn(rows, frames * MEL_HOP_SAMPLES)
    excitation = net.m_source(f0_hz, torch.rand(rows), cycles, noise)
    x, _ = net._filter(mel.transpose(1, 2), net.spectrum.analyse(excitation, None), None)
    return net.spectrum.synthesise(vocoder_module._to_spectrum(x), None)


@torch.no_grad()
def speak(encoder: TokenEncoder, net: Vocoder, sounds: Ints) -> F32:
    """Sounds (N,) -> samples (960 N,) through the encoder's mel and the vocoder's own pitch."""
    mu, _ = encoder(tensor(sounds)[None], None, torch.zeros(1, X_VECTOR_DIM))
    f0_hz = net.f0_predictor(mu.transpose(1, 2), None)
    samples: F32 = synthesise(net, mu, f0_hz)[0].cpu().numpy()
    return samples


def _log(x: Tensor) -> Tensor:
    return x.clamp_min(1e-4).log()
