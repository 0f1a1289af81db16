"""The vocoder's short-time Fourier transform and its inverse (16 samples, hop 4, Hann), as convolutions.

The results are those of torch.stft and torch.istft with centred frames, but without complex tensors, so that they can
be exported, and with each row's own end, at which the signal is reflected and fewer windows overlap.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.s3gen.nets.layers import valid_frames

WINDOW_SAMPLES = 16
HOP_SAMPLES = 4
BINS = WINDOW_SAMPLES // 2 + 1
_HALF = WINDOW_SAMPLES // 2
_MIN_ENVELOPE = 1e-3  # only ever reached in the pad


class Spectrum(nn.Module):
    """The transform's kernels, which are constants."""

    _forward: Tensor
    _inverse: Tensor
    _envelope: Tensor

    def __init__(self) -> None:
        super().__init__()
        # on the CPU even if a net is made on the meta device: no file has these constants
        n = torch.arange(WINDOW_SAMPLES, dtype=torch.float64, device="cpu")
        window = 0.5 - 0.5 * torch.cos(2 * math.pi * n / WINDOW_SAMPLES)
        angle = 2 * math.pi * torch.arange(BINS, dtype=torch.float64, device="cpu")[:, None] * n / WINDOW_SAMPLES
        waves = torch.cat([angle.cos(), -angle.sin()])  # (18, 16): real parts, then imaginary parts
        once = torch.ones(BINS, dtype=torch.float64, device="cpu")
        once[1:-1] = 2.0  # bins that stand for their mirror image too
        inverse = waves * torch.cat([once, once])[:, None] / WINDOW_SAMPLES
        self._keep("_forward", (waves * window)[:, None])
        self._keep("_inverse", (inverse * window)[:, None])
        self._keep("_envelope", (window**2)[None, None])

    def _keep(self, name: str, kernel: Tensor) -> None:
        self.register_buffer(name, kernel.float(), persistent=False)

    def analyse(self, signal: Tensor, lengths: Tensor | None) -> Tensor:
        """signal (B, S), lengths (B,) samples or None -> (B, 18, S / 4 + 1), nine real parts, nine imaginary."""
        spectrum = F.conv1d(_reflect(signal, lengths)[:, None], self._forward, stride=HOP_SAMPLES)
        return spectrum if lengths is None else spectrum * _frame_mask(lengths, spectrum)

    def synthesise(self, spectrum: Tensor, lengths: Tensor | None) -> Tensor:
        """Inverse of `analyse`: (B, 18, J) -> (B, 4 (J - 1)), zero in the pad."""
        frames = torch.ones_like(spectrum[:, :1])
        if lengths is not None:
            frames = _frame_mask(lengths, spectrum)
            spectrum = spectrum * frames
        signal = F.conv_transpose1d(spectrum, self._inverse, stride=HOP_SAMPLES)
        envelope = F.conv_transpose1d(frames, self._envelope, stride=HOP_SAMPLES)
        signal = (signal / envelope.clamp_min(_MIN_ENVELOPE))[:, 0, _HALF:-_HALF]
        # a row's last frame reaches half a window beyond its end
        return signal if lengths is None else signal * valid_frames(lengths, signal.shape[1]).to(signal.dtype)


def _frame_mask(lengths: Tensor, spectrum: Tensor) -> Tensor:
    """(B, 1, J): 1 at the frames that a row of `lengths` samples has."""
    return valid_frames(lengths // HOP_SAMPLES + 1, spectrum.shape[2]).to(spectrum.dtype)[:, None]


def _reflect(signal: Tensor, lengths: Tensor | None) -> Tensor:
    """(B, S) -> (B, S + 16): half a window of mirror image before the start and behind each row's own end."""
    if lengths is None:
        return F.pad(signal[:, None], (_HALF, _HALF), mode="reflect")[:, 0]
    position = torch.arange(-_HALF, signal.shape[1] + _HALF, device=signal.device).abs()[None]
    end = lengths[:, None]
    source = torch.where(position < end, position, 2 * end - 2 - position)
    mirrored = torch.gather(signal, 1, source.clamp_min(0))
    return mirrored * (position < end + _HALF).to(signal.dtype)
