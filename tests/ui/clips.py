"""Clips without speech for the tests of voice cloning: noise and tones of a given length and level."""

from __future__ import annotations

import io
import wave

import numpy as np

RATE_HZ = 16_000


def noise(seconds: float, *, amplitude: float = 0.3) -> bytes:
    """A 16-bit mono WAV file of noise with the rhythm of syllables."""
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    syllables = np.sin(np.pi * 4 * time_s) ** 2
    hiss = np.random.default_rng(7).uniform(-1, 1, len(time_s))
    return encoded(amplitude * syllables * hiss)


def sine(seconds: float, hz: float, amplitude: float) -> bytes:
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return encoded(amplitude * np.sin(2 * np.pi * hz * time_s))


def encoded(samples: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(np.rint(samples * 32767).astype("<i2").tobytes())
    return buffer.getvalue()
