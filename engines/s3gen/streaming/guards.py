"""Checks on decoded windows: values that are not finite, silence where there should be speech, sudden noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engines.errors import EngineFailure
from engines.model_spec import SAMPLE_RATE_HZ, SILENCE_SPEECH_TOKEN
from engines.s3gen.noise import F32

# A healthy vocoder never gives digital silence, because its source always carries noise. A broken engine does.
_SILENT_RMS = 1e-6
_SILENT_TOKENS = 10  # shorter windows may end in a pause
# Speech after a pause is far louder than the pause, so a jump is measured against the loudest window so far.
_JUMP_RATIO = 20.0  # 26 dB
_JUMP_RMS = 0.05
_JUMP_AFTER_SAMPLES = SAMPLE_RATE_HZ


class WindowRejected(EngineFailure):
    """A window's result is unusable; decoding it again on another runtime may help."""


class Guard:
    """The checks of one segment."""

    def __init__(self) -> None:
        self._loudest_rms = 0.0
        self._accepted_samples = 0

    def mel(self, window_index: int, mel: F32) -> None:
        """Raises WindowRejected if a frame is not finite."""
        if not np.isfinite(mel).all():
            raise WindowRejected(f"Window {window_index}: mel frames are not finite.")

    def samples(self, window_index: int, samples: F32, speech_tokens: Sequence[int]) -> None:
        """Accept a window's new samples, made from `speech_tokens`; call it once for each result.

        Raises WindowRejected.
        """
        if not np.isfinite(samples).all():
            raise WindowRejected(f"Window {window_index}: samples are not finite.")
        rms = float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))
        speech = any(token != SILENCE_SPEECH_TOKEN for token in speech_tokens)
        if rms < _SILENT_RMS and speech and len(speech_tokens) >= _SILENT_TOKENS:
            raise WindowRejected(f"Window {window_index}: {len(speech_tokens)} speech tokens came out silent.")
        level_known = self._accepted_samples >= _JUMP_AFTER_SAMPLES and self._loudest_rms > _SILENT_RMS
        if level_known and rms > _JUMP_RMS and rms > _JUMP_RATIO * self._loudest_rms:
            raise WindowRejected(
                f"Window {window_index} is {rms / self._loudest_rms:.0f} times louder than all before it."
            )
        self._loudest_rms = max(self._loudest_rms, rms)
        self._accepted_samples += len(samples)
