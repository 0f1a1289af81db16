"""The prompt mel of S3Gen: 24 kHz samples -> log-mel, 50 frames/s."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from engines.audio import Samples, mel_filterbank
from engines.model_spec import MEL_BANDS, MEL_HOP_SAMPLES, SAMPLE_RATE_HZ

_FFT_SAMPLES = 4 * MEL_HOP_SAMPLES
_PAD_SAMPLES = (_FFT_SAMPLES - MEL_HOP_SAMPLES) // 2  # n hops of samples give n frames
_HIGHEST_HZ = 8000.0
_POWER_FLOOR = 1e-9
_MEL_FLOOR = 1e-5


def prompt_mel(samples: Samples) -> Samples:
    """Returns (samples // 480, 80), the natural log of mel magnitude, for more than 720 samples.

    Source: upstream's mel_spectrogram. Window and transform are torch's, as there: in a quiet band of a loud frame,
    single-precision rounding changes the logarithm by up to 5e-4, and another window or FFT rounds differently.
    """
    window = torch.hann_window(_FFT_SAMPLES)
    filters = torch.tensor(mel_filterbank(SAMPLE_RATE_HZ, _FFT_SAMPLES, MEL_BANDS, 0.0, _HIGHEST_HZ))
    padded = F.pad(torch.tensor(samples)[None], (_PAD_SAMPLES, _PAD_SAMPLES), mode="reflect")
    spectrum = torch.stft(padded, _FFT_SAMPLES, MEL_HOP_SAMPLES, window=window, center=False, return_complex=True)
    magnitude = torch.view_as_real(spectrum[0]).square().sum(dim=-1).add(_POWER_FLOOR).sqrt()  # (961, T)
    mel: Samples = (filters @ magnitude).clamp_min(_MEL_FLOOR).log().T.contiguous().numpy()
    return mel
