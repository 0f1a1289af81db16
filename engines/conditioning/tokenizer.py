"""The S3 tokenizer v2: 16 kHz samples -> speech tokens, 25 per second.

The package `s3tokenizer` is not used: it would install torchaudio, onnx and pre-commit everywhere, and its support for
long audio is not needed, since a voice's prompts are at most 15 s long.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from engines.audio import Samples, power_spectrum, weighted_sums
from engines.model_spec import MAX_T3_PROMPT_TOKENS, ModelSpec

RATE_HZ = 16_000
PREFIX = "tokenizer."  # of its tensors in S3Gen's file
_MEL_BANDS = 128
_FFT_SAMPLES, _HOP_SAMPLES = 400, 160  # 100 mel frames/s
_FRAMES_PER_TOKEN = 4  # two convolutions of stride 2
_HEAD_DIM = 64
_MEMORY_TOKENS = 31  # kernel of the FSMN memory, centred
_LEVELS, _DIGITS = 3, 8  # a speech token is eight ternary digits
_ROUNDING_MARGIN = 0.9990000128746033  # as trained: keeps tanh away from the outermost rounding boundaries


class _Attention(nn.Module):
    """Self-attention with rotary positions, plus a depthwise convolution over the values (FSMN memory)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.fsmn_block = nn.Conv1d(width, width, _MEMORY_TOKENS, padding=_MEMORY_TOKENS // 2, groups=width, bias=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """(B, T, width) -> (B, T, width)."""
        value: torch.Tensor = self.value(x)
        memory = self._memory(value) + value
        query, key = _rotate(_heads(self.query(x)), cos, sin), _rotate(_heads(self.key(x)), cos, sin)
        mixed = F.scaled_dot_product_attention(query, key, _heads(value))  # (B, heads, T, 64)
        summed: torch.Tensor = self.out(mixed.transpose(1, 2).flatten(2)) + memory
        return summed

    def _memory(self, value: torch.Tensor) -> torch.Tensor:
        """`fsmn_block` over (B, T, width), as an image of one row: channels last take a sixth of the time."""
        image = value.transpose(1, 2)[:, :, None]
        padding = (0, _MEMORY_TOKENS // 2)
        weight = self.fsmn_block.weight[:, :, None]
        return F.conv2d(image, weight, padding=padding, groups=weight.shape[0])[:, :, 0].transpose(1, 2)


def _heads(x: torch.Tensor) -> torch.Tensor:
    return x.view(*x.shape[:2], -1, _HEAD_DIM).transpose(1, 2)  # (B, heads, T, 64)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = _Attention(width)
        self.attn_ln = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.mlp_ln = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.attn_ln(x), cos, sin)
        y: torch.Tensor = x + self.mlp(self.mlp_ln(x))
        return y


class _Encoder(nn.Module):
    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(_MEL_BANDS, width, 3, stride=2, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(layers))

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        """(B, 128, T) log-mel, 100 frames/s -> (B, ceil(T / 4), width), 25 per second."""
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)
        cos, sin = _rotary(x.shape[1], x.device)
        for block in self.blocks:
            x = block(x, cos, sin)
        return x


def _rotary(tokens: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns cosine and sine, (tokens, 64) each, of every position's angles; the 32 frequencies occur twice."""
    frequencies = 10_000.0 ** -(torch.arange(0, _HEAD_DIM, 2, device=device).float() / _HEAD_DIM)
    angles = torch.outer(torch.arange(tokens, device=device).float(), frequencies).repeat(1, 2)
    return angles.cos(), angles.sin()


class _Codebook(nn.Module):
    """Finite scalar quantization (Mentzer et al. 2023): eight digits of three levels, the least significant first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project_down = nn.Linear(width, _DIGITS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, width) -> (B, T) int64 speech tokens in 0..6560."""
        digits: torch.Tensor = (self.project_down(x).tanh() * _ROUNDING_MARGIN).round().long() + 1
        return (digits * _LEVELS ** torch.arange(_DIGITS, device=x.device)).sum(dim=-1)


class SpeechTokenizer(nn.Module):
    """The tokenizer of CosyVoice 2 (Du et al. 2024). State dict: the `tokenizer.` tensors of S3Gen's file."""

    _mel_filters: torch.Tensor
    window: torch.Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        sizes = spec.conditioning
        assert sizes.tokenizer_width == sizes.tokenizer_heads * _HEAD_DIM, "rotary positions assume heads of 64"
        self.encoder = _Encoder(sizes.tokenizer_width, sizes.tokenizer_layers)
        self.quantizer = nn.Sequential(OrderedDict(_codebook=_Codebook(sizes.tokenizer_width)))
        self.register_buffer("_mel_filters", torch.empty(_MEL_BANDS, _FFT_SAMPLES // 2 + 1))
        self.register_buffer("window", torch.empty(_FFT_SAMPLES))  # periodic Hann

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        """(B, 128, T) log-mel -> (B, ceil(T / 4)) speech tokens."""
        speech_tokens: torch.Tensor = self.quantizer(self.encoder(mel))
        return speech_tokens

    @torch.inference_mode()
    def encode(self, samples: Samples, max_tokens: int = MAX_T3_PROMPT_TOKENS) -> npt.NDArray[np.int64]:
        """Returns (<= max_tokens,) speech tokens of more than 200 samples at 16 kHz."""
        mel = torch.from_numpy(self.log_mel(samples)[:, : max_tokens * _FRAMES_PER_TOKEN])
        speech_tokens: npt.NDArray[np.int64] = self(mel[None].to(self.window.device))[0].cpu().numpy()
        return speech_tokens

    def log_mel(self, samples: Samples) -> Samples:
        """Returns (128, samples // 160) log10 mel power, clipped 8 below its peak and scaled, as Whisper's."""
        power = power_spectrum(samples, self.window.cpu().numpy(), _HOP_SAMPLES, _FFT_SAMPLES // 2)[:-1]  # (T, 201)
        mel = weighted_sums(power, self._mel_filters.cpu().numpy())  # (T, 128)
        levels = np.log10(np.maximum(mel.T, 1e-10))
        scaled: Samples = (np.maximum(levels, levels.max() - 8.0) + 4.0) / 4.0
        return scaled


def expected_tensors(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """The names (without the prefix) and shapes of the tokenizer's tensors in S3Gen's file."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in SpeechTokenizer(spec).state_dict().items()}
