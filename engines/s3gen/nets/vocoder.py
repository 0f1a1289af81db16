"""The vocoder (HiFT): mel and its source -> waveform, 480 samples a frame.

Upstream: models.s3gen.hifigan, under the same weight names, with weights as vocoder_weights.py folds them. All
randomness and carried state are inputs. With lengths every convolution's input is masked, so that a row ends as it
would alone.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.model_spec import MEL_BANDS, MEL_HOP_SAMPLES, VocoderSpec
from engines.s3gen.nets.layers import valid_frames
from engines.s3gen.nets.source import F0Predictor, Source, predicted_unless_fixed
from engines.s3gen.nets.spectrum import BINS, HOP_SAMPLES, Spectrum

UP_RATES = (8, 5, 3)
_UP_KERNELS = (16, 11, 7)
_DOWN_RATES = (15, 3, 1)  # of the source's spectrum, to the three stages' rates
_SOURCE_KERNELS = (7, 7, 11)
KERNELS = (3, 7, 11)
DILATIONS = (1, 3, 5)
_STAGE_FRAMES = (8, 40, 120)  # per mel frame, after each upsampling
assert _STAGE_FRAMES[-1] * HOP_SAMPLES == MEL_HOP_SAMPLES
# The reach of a stage and those behind it in mel frames: frames farther from all that are played are cut off before the
# stage. The first stage's reach is a window's context; the last's is 127 of its 120 columns a frame.
_REACH_FRAMES = (14, 4, 2)

Ends = tuple[int, int]  # mel frames at the left and at the right end of every row

_SLOPE, _LAST_SLOPE = 0.1, 0.01  # leaky ReLU; upstream leaves the last at torch's default
_LOUDEST_BIN = 1e2
_AUDIO_LIMIT = 0.99


class StageBlocks(Protocol):
    """The residual blocks behind an upsampling: x (B, C, T) and the source (B, C, T) -> (B, C, T)."""

    def __call__(self, stage: int, x: Tensor, excited: Tensor, mask: Tensor | None) -> Tensor: ...


class Vocoder(nn.Module):
    """f0 predictor, source, and a filter that upsamples 8 x 5 x 3 and ends in an inverse Fourier transform."""

    def __init__(self, spec: VocoderSpec) -> None:
        super().__init__()
        widths = [spec.base_channels // 2**i for i in range(len(UP_RATES) + 1)]
        stages = list(zip(UP_RATES, _UP_KERNELS, widths[:-1], widths[1:], strict=True))
        self.f0_predictor = F0Predictor(spec.f0_channels)
        self.m_source = Source()
        self.spectrum = Spectrum()
        self.conv_pre = nn.Conv1d(MEL_BANDS, widths[0], 7, padding=3)
        self.ups = nn.ModuleList(
            [nn.ConvTranspose1d(wide, thin, k, rate, (k - rate) // 2) for rate, k, wide, thin in stages]
        )
        self.source_downs = nn.ModuleList([_down(rate, w) for rate, w in zip(_DOWN_RATES, widths[1:], strict=True)])
        self.source_resblocks = nn.ModuleList(
            [ResBlock(w, k) for w, k in zip(widths[1:], _SOURCE_KERNELS, strict=True)]
        )
        self.resblocks = nn.ModuleList([ResBlock(w, k) for w in widths[1:] for k in KERNELS])
        self.conv_post = nn.Conv1d(widths[-1], 2 * BINS, 7, padding=3)
        self.compiled_impl: StageBlocks | None = None  # of the residual blocks

    def forward(
        self,
        mel: Tensor,
        lengths: Tensor | None,
        fixed_f0_hz: Tensor,
        fixed_frames: Tensor,
        phase_cycles: Tensor,
        harmonic_cycles: Tensor,
        noise: Tensor,
        margins: Ends = (0, 0),
    ) -> tuple[Tensor, Tensor]:
        """Shapes as in runtime.VocoderBatch; lengths None if all rows are full
        -> waveform (B, 480 T) and f0_hz (B, T), both float32 and zero in the pad; the waveform is undefined within the
        margins.
        """
        mel = mel.transpose(1, 2)  # (B, 80, T)
        mask = _mask(lengths, mel.shape[2])
        predicted = self.f0_predictor(mel, mask)
        f0_hz = _masked(predicted_unless_fixed(predicted, fixed_f0_hz, fixed_frames)[:, None], mask)[:, 0]
        excitation = self.m_source(f0_hz, phase_cycles, harmonic_cycles, noise)
        source = self.spectrum.analyse(excitation, _samples(lengths))
        x, lengths = self._filter(mel, source, lengths, margins)
        waveform = self.spectrum.synthesise(_to_spectrum(x.float()), _samples(lengths))
        waveform = F.pad(waveform, [MEL_HOP_SAMPLES * frames for frames in _spare(margins, stage=-1)])
        return waveform.clamp(-_AUDIO_LIMIT, _AUDIO_LIMIT), f0_hz

    def _filter(
        self, mel: Tensor, source: Tensor, lengths: Tensor | None, margins: Ends = (0, 0)
    ) -> tuple[Tensor, Tensor | None]:
        """mel (B, 80, T), source (B, 18, 120 T + 1) -> (B, 18, 120 F + 1) of the F frames that the last stage has
        left, in the filter's dtype, and the rows' lengths."""
        dtype, frames, kept = self.conv_pre.weight.dtype, mel.shape[2], lengths
        source = source.to(dtype)
        x = self.conv_pre(_masked(mel.to(dtype), _mask(lengths, frames)))
        gone = (0, 0)
        for stage, up in enumerate(self.ups):
            before = 1 if stage == 0 else _STAGE_FRAMES[stage - 1]
            spare = _spare(margins, stage)
            x = _without(x, (spare[0] - gone[0], spare[1] - gone[1]), before)
            kept, gone = _lengths_without(lengths, frames, spare), spare
            x = up(_masked(F.leaky_relu(x, _SLOPE), _mask(kept, x.shape[2], before)))
            is_last = stage == len(self.ups) - 1
            if is_last:
                x = torch.cat([x[..., 1:2], x], dim=-1)  # one frame more, to meet the spectrum's count
            mask = _mask(kept, x.shape[2], _STAGE_FRAMES[stage], int(is_last))
            excited = self.source_downs[stage](_without(source, spare, _STAGE_FRAMES[-1]))
            x = (self.compiled_impl or self._blocks_of_stage)(stage, x, excited, mask)
        spectrum: Tensor = self.conv_post(_masked(F.leaky_relu(x, _LAST_SLOPE), mask))
        return spectrum, kept

    def _blocks_of_stage(self, stage: int, x: Tensor, excited: Tensor, mask: Tensor | None) -> Tensor:
        """The sum of three residual blocks; that upstream takes their mean is folded into the next weights."""
        x = self.source_resblocks[stage](excited, mask).add_(x)
        first = stage * len(KERNELS)
        total: Tensor = self.resblocks[first](x, mask)
        for block in self.resblocks[first + 1 : first + len(KERNELS)]:
            total = total.add_(block(x, mask))
        return total

    def to_filter_dtype(self, dtype: torch.dtype) -> Vocoder:
        """Run the filter in another precision; f0, source and Fourier transform stay in float32."""
        for part in (self.conv_pre, self.ups, self.source_downs, self.source_resblocks, self.resblocks, self.conv_post):
            part.to(dtype)
        return self


class ResBlock(nn.Module):
    """Three pairs of convolutions, each behind a Snake activation x + sin^2(a x) / a.

    With the factors a and 1 / a folded into the weights around it, a Snake is w + sin^2(w). Only the first of each
    pair, which is on the residual path, still multiplies by a.
    """

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList([_same(channels, taps, dilation) for dilation in DILATIONS])
        self.convs2 = nn.ModuleList([_same(channels, taps, 1) for _ in DILATIONS])
        self.activations1 = nn.ModuleList([_Alpha(channels) for _ in DILATIONS])

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for conv1, conv2, alpha in zip(self.convs1, self.convs2, self.activations1, strict=True):
            h = conv1(_masked(_snake(alpha(x)), mask))
            x = conv2(_masked(_snake(h), mask)).add_(x)
        return x


class _Alpha(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.alpha[:, None]


def _snake(w: Tensor) -> Tensor:
    """w + sin^2(w), in place: these tensors are the vocoder's largest."""
    sine = torch.sin(w)
    return w.addcmul_(sine, sine)


def _same(channels: int, taps: int, dilation: int) -> nn.Conv1d:
    return nn.Conv1d(channels, channels, taps, dilation=dilation, padding=dilation * (taps - 1) // 2)


def _down(rate: int, channels: int) -> nn.Conv1d:
    if rate == 1:
        return nn.Conv1d(2 * BINS, channels, 1)
    return nn.Conv1d(2 * BINS, channels, 2 * rate, rate, rate // 2)


def _to_spectrum(x: Tensor) -> Tensor:
    """(B, 18, J): log magnitudes and phases -> real and imaginary parts."""
    magnitude = x[:, :BINS].exp().clamp_max(_LOUDEST_BIN)
    phase = torch.sin(x[:, BINS:])
    return torch.cat([magnitude * phase.cos(), magnitude * phase.sin()], dim=1)


def _spare(margins: Ends, stage: int) -> Ends:
    """The part of the margins that neither this stage nor one behind it needs."""
    left, right = (max(0, frames - _REACH_FRAMES[stage]) for frames in margins)
    return left, right


def _without(x: Tensor, ends: Ends, rate: int) -> Tensor:
    """x (B, C, T), `rate` of T per mel frame, without its ends."""
    return x if ends == (0, 0) else x[..., ends[0] * rate : x.shape[-1] - ends[1] * rate]


def _lengths_without(lengths: Tensor | None, frames: int, ends: Ends) -> Tensor | None:
    """Rows' lengths (B,) after the `frames` of the batch have lost their ends."""
    return lengths if lengths is None or ends == (0, 0) else (lengths - ends[0]).clamp(max=frames - sum(ends))


def _samples(lengths: Tensor | None) -> Tensor | None:
    return None if lengths is None else lengths * MEL_HOP_SAMPLES


def _mask(lengths: Tensor | None, frames: int, rate: int = 1, extra: int = 0) -> Tensor | None:
    """(B, 1, frames): 1 before each row's end, `rate` frames per mel frame and `extra` at the end."""
    return None if lengths is None else valid_frames(lengths * rate + extra, frames)[:, None]


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask.to(x.dtype)
