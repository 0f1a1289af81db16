"""Audio signal processing in numpy and soxr: resampling, loudness, silence trimming, spectra and mel filters.

Samples are float32, mono, full scale 1.0, shape (n,).
"""

from __future__ import annotations

import math
import warnings
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

# ITU-R BS.1770 measures in blocks of 400 ms and ignores blocks below -70 LUFS.
_LOUDNESS_BLOCK_MS = 400
_FADE_S = 0.2


def resample(samples: Samples, from_hz: int, to_hz: int) -> Samples:
    """Resample with soxr HQ, as librosa does with soxr_hq.

    Returns ceil(n x to / from) samples, or one silent sample more where the product rounds up in floating point:
    a voice's last speech token can depend on it.
    """
    import soxr

    if from_hz == to_hz:
        return samples
    return _fit(soxr.resample(samples, from_hz, to_hz, quality="HQ"), _resampled_length(len(samples), from_hz, to_hz))


def faded_out(samples: Samples, rate_hz: int) -> Samples:
    """Returns a copy whose last 0.2 s, or all of it if it is shorter, falls to silence in half a cosine."""
    faded = samples.copy()
    count = min(len(faded), round(_FADE_S * rate_hz))
    faded[len(faded) - count :] *= (0.5 + 0.5 * np.cos(np.linspace(0, np.pi, count))).astype(np.float32)
    return faded


class StreamResampler:
    """A streaming resampler: the joined results of `push` and `finish` equal `resample`."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        import soxr

        self._from_hz, self._to_hz = from_hz, to_hz
        self._stream = soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32", quality="HQ")
        self._input_samples = 0
        self._output_samples = 0

    def push(self, samples: Samples) -> Samples:
        """Returns the samples that are final so far; the filter delays about 10 ms."""
        self._input_samples += len(samples)
        ready = samples if self._from_hz == self._to_hz else self._stream.resample_chunk(samples)
        self._output_samples += len(ready)
        return ready

    def finish(self) -> Samples:
        """Returns the remaining samples. Do not call `push` afterwards."""
        due_samples = _resampled_length(self._input_samples, self._from_hz, self._to_hz) - self._output_samples
        return _fit(self._stream.resample_chunk(np.zeros(0, np.float32), last=True), due_samples)


def _resampled_length(samples: int, from_hz: int, to_hz: int) -> int:
    return samples if from_hz == to_hz else math.ceil(samples * (to_hz / from_hz))


def _fit(samples: Samples, length_samples: int) -> Samples:
    return np.pad(samples, (0, max(0, length_samples - len(samples))))[:length_samples]


def resample_windowed_sinc(samples: Samples, from_hz: int, to_hz: int) -> Samples:
    """Resample with a squared-cosine windowed sinc of six zero crossings, rolled off at 0.99 of Nyquist.

    The published models' prompts were tokenized after exactly this filter (torchaudio's default), and speech tokens
    depend on it. For other purposes `resample` is better.
    """
    kernel, width_samples, step_samples = _sinc_kernel(from_hz, to_hz)  # (phases, taps)
    padded = np.pad(samples, (width_samples, width_samples + step_samples))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[1])[::step_samples]
    phases = weighted_sums(windows, kernel)  # (input steps, phases)
    return phases.reshape(-1)[: -(-len(samples) * kernel.shape[0] // step_samples)]


@lru_cache(maxsize=8)
def _sinc_kernel(from_hz: int, to_hz: int) -> tuple[Samples, int, int]:
    """Returns one row of taps per output phase, their reach to the left, and the input samples per cycle of phases."""
    common = math.gcd(from_hz, to_hz)
    old, new = from_hz // common, to_hz // common
    zero_crossings, cutoff = 6, 0.99 * min(old, new)
    width = math.ceil(zero_crossings * old / cutoff)
    times = np.arange(-width, width + old)[None, :] / old - np.arange(new)[:, None] / new
    times = np.clip(times * cutoff, -zero_crossings, zero_crossings)
    window = np.cos(times * np.pi / zero_crossings / 2) ** 2
    return (np.sinc(times) * window * cutoff / old).astype(np.float32), width, old


def loudness_lufs(samples: Samples, rate_hz: int) -> float:
    """Integrated loudness after ITU-R BS.1770-4; -inf if shorter than 400 ms or below -70 LUFS throughout."""
    import pyloudnorm  # imports scipy, which only voice building needs

    if len(samples) * 1000 < _LOUDNESS_BLOCK_MS * rate_hz:
        return -math.inf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean over zero blocks: silence, reported as -inf
        return float(pyloudnorm.Meter(rate_hz).integrated_loudness(samples))


def with_gain(samples: Samples, gain_db: float) -> Samples:
    """Returns amplified samples; unchanged if the gain is not a positive finite factor, as upstream."""
    factor = 10.0 ** (gain_db / 20.0) if gain_db < 6000.0 else math.inf
    return samples * np.float32(factor) if math.isfinite(factor) and factor > 0.0 else samples


def to_f32le(samples: Samples) -> bytes:
    """32-bit float little-endian PCM, not clipped."""
    return samples.astype("<f4", copy=False).tobytes()


def trim_silence(samples: Samples, top_db: float = 20.0, frame_samples: int = 2048, hop_samples: int = 512) -> Samples:
    """Remove leading and trailing frames whose RMS is at least `top_db` below the loudest frame's.

    Equals librosa.effects.trim with the same arguments. Samples of constant RMS are unchanged.
    """
    padded = np.pad(samples, frame_samples // 2)  # frames are centred on multiples of the hop
    frames = np.lib.stride_tricks.sliding_window_view(padded, frame_samples)[::hop_samples]
    power = np.maximum(np.mean(frames**2, axis=1), 1e-10)  # (frames,)
    loud = np.flatnonzero(10 * np.log10(power) > 10 * np.log10(power.max()) - top_db)
    return samples[loud[0] * hop_samples : (loud[-1] + 1) * hop_samples]


@lru_cache(maxsize=8)
def hann_window(length_samples: int) -> Samples:
    """Periodic Hann window, read-only."""
    return _frozen((0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length_samples) / length_samples)).astype(np.float32))


def power_spectrum(samples: Samples, window: Samples, hop_samples: int, pad_samples: int) -> Samples:
    """Returns (frames, len(window) // 2 + 1) squared magnitudes of frames, with reflected padding at both ends."""
    padded = np.pad(samples, pad_samples, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, len(window))[::hop_samples]
    spectrum = np.fft.rfft(frames * window, axis=1)
    return (spectrum.real**2 + spectrum.imag**2).astype(np.float32, copy=False)


def weighted_sums(rows: Samples, weights: Samples) -> Samples:
    """rows (n, k) x weights (m, k) -> (n, m); for filters, where m and k are a few hundred at most.

    NumPy's `@` is not used: OpenBLAS's threads keep spinning for tens of milliseconds after every product, which slowed
    the nets that run next by a quarter.
    """
    sums: Samples = np.einsum("nk,mk->nm", rows, weights)
    return sums


@lru_cache(maxsize=8)
def mel_filterbank(rate_hz: int, fft_samples: int, bands: int, low_hz: float, high_hz: float) -> Samples:
    """(bands, fft_samples // 2 + 1) triangles of equal area on Slaney's mel scale, read-only.

    Source: Slaney's Auditory Toolbox; equals librosa.filters.mel with its defaults.
    """
    edges_hz = _mel_to_hz(np.linspace(_hz_to_mel(low_hz), _hz_to_mel(high_hz), bands + 2))
    bins_hz = np.linspace(0, rate_hz / 2, fft_samples // 2 + 1)
    distance_hz = edges_hz[:, None] - bins_hz[None, :]  # (bands + 2, bins)
    width_hz = np.diff(edges_hz)[:, None]
    rising, falling = -distance_hz[:-2] / width_hz[:-1], distance_hz[2:] / width_hz[1:]
    area = 2.0 / (edges_hz[2:] - edges_hz[:-2])
    return _frozen((np.maximum(0, np.minimum(rising, falling)) * area[:, None]).astype(np.float32))


# Slaney's scale: 200/3 Hz per mel up to 1 kHz (15 mel), then 27 mel for a factor of 6.4.
_LINEAR_HZ_PER_MEL, _BREAK_HZ, _BREAK_MEL, _LOG_STEP = 200.0 / 3.0, 1000.0, 15.0, math.log(6.4) / 27.0


def _hz_to_mel(hz: float) -> float:
    if hz < _BREAK_HZ:
        return hz / _LINEAR_HZ_PER_MEL
    return _BREAK_MEL + math.log(hz / _BREAK_HZ) / _LOG_STEP


def _mel_to_hz(mel: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    above = _BREAK_HZ * np.exp(_LOG_STEP * (np.maximum(mel, _BREAK_MEL) - _BREAK_MEL))
    return np.where(mel < _BREAK_MEL, mel * _LINEAR_HZ_PER_MEL, above)


def _frozen(array: Samples) -> Samples:
    array.setflags(write=False)
    return array
