"""The voice encoder: 16 kHz samples -> the speaker embedding that T3 is conditioned on."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from engines.audio import Samples, hann_window, mel_filterbank, power_spectrum, trim_silence, weighted_sums
from engines.model_spec import SPEAKER_EMBEDDING_DIM, ModelSpec

RATE_HZ = 16_000
_MEL_BANDS = 40
_FFT_SAMPLES, _HOP_SAMPLES = 400, 160
_WINDOW_FRAMES = 160  # 1.6 s
_WINDOWS_PER_S = 1.3
_STEP_FRAMES = round(RATE_HZ / _WINDOWS_PER_S / _WINDOW_FRAMES)
_MIN_COVERAGE = 0.8  # a last window that is filled less is dropped


class SpeakerEncoder(nn.Module):
    """Three LSTM layers over mel windows; a window's embedding is the projected last state.

    State dict: `ve.safetensors`. Source: upstream's VoiceEncoder, after Wan et al. 2018 (GE2E).
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        hidden = spec.conditioning.speaker_hidden
        self.lstm = nn.LSTM(_MEL_BANDS, hidden, num_layers=3, batch_first=True)
        self.proj = nn.Linear(hidden, SPEAKER_EMBEDDING_DIM)
        # the training loss's scale: in the file, but unused in inference
        self.similarity_weight = nn.Parameter(torch.empty(1))
        self.similarity_bias = nn.Parameter(torch.empty(1))

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """(B, 160, 40) mel power -> (B, 256), every row of length 1."""
        _, (state, _) = self.lstm(windows)
        return F.normalize(F.relu(self.proj(state[-1])), dim=1)

    @torch.inference_mode()
    def embed(self, samples: Samples) -> Samples:
        """Returns (256,) of length 1, the mean over all windows of at least 0.2 s of 16 kHz samples, not silent."""
        windows = torch.from_numpy(mel_windows(samples)).to(self.proj.weight.device)
        return F.normalize(self(windows).mean(dim=0), dim=0).cpu().numpy()


def mel_windows(samples: Samples) -> Samples:
    """Returns (windows, 160, 40) mel power, one window every 77 frames, without leading and trailing silence."""
    speech = trim_silence(samples)
    power = power_spectrum(speech, hann_window(_FFT_SAMPLES), _HOP_SAMPLES, _FFT_SAMPLES // 2)
    filters = mel_filterbank(RATE_HZ, _FFT_SAMPLES, _MEL_BANDS, 0.0, RATE_HZ / 2)
    mel = weighted_sums(power, filters)  # (T, 40), 100 frames/s
    count = window_count(len(mel))
    needed_frames = _WINDOW_FRAMES + _STEP_FRAMES * (count - 1)
    mel = np.pad(mel, ((0, max(0, needed_frames - len(mel))), (0, 0)))
    return np.stack([mel[i * _STEP_FRAMES :][:_WINDOW_FRAMES] for i in range(count)])


def window_count(frames: int) -> int:
    """The number of windows in `frames` frames. The last one counts if at least 80 % of it is filled."""
    whole, left_frames = divmod(max(frames - _WINDOW_FRAMES + _STEP_FRAMES, 0), _STEP_FRAMES)
    coverage = (left_frames + _WINDOW_FRAMES - _STEP_FRAMES) / _WINDOW_FRAMES
    return whole + 1 if whole == 0 or coverage >= _MIN_COVERAGE else whole


def expected_tensors(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the tensors in `ve.safetensors`."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in SpeakerEncoder(spec).state_dict().items()}
