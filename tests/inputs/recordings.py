"""Recordings as people send them: speech with something before, behind, between or under it, made from flite's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tests.clips import speech

RATE_HZ = 16_000
Samples = npt.NDArray[np.float32]


def spoken(duration_s: float = 8.0, voice: str = "slt") -> Samples:
    samples, rate_hz = speech(duration_s, voice)
    assert rate_hz == RATE_HZ
    return samples


def silence(duration_s: float) -> Samples:
    return np.zeros(round(duration_s * RATE_HZ), np.float32)


def noise(duration_s: float, level: float) -> Samples:
    drawn = np.random.default_rng(0).standard_normal(round(duration_s * RATE_HZ))
    return (level * drawn).astype(np.float32)


def _times(duration_s: float) -> npt.NDArray[np.float64]:
    return np.arange(round(duration_s * RATE_HZ)) / RATE_HZ


def tone(duration_s: float, pitch_hz: float = 1000.0) -> Samples:
    return (0.3 * np.sin(2 * np.pi * pitch_hz * _times(duration_s))).astype(np.float32)


def hum(duration_s: float) -> Samples:
    partials = [np.sin(2 * np.pi * 50.0 * k * _times(duration_s)) / k for k in range(1, 8)]
    return (0.1 * np.sum(partials, axis=0)).astype(np.float32)


def music(duration_s: float) -> Samples:
    """Plucked notes of eight partials, four a second."""
    draw, total = np.random.default_rng(1), silence(duration_s)
    time_s = _times(1.0)
    for start in range(0, len(total), RATE_HZ // 4):
        pitch_hz = 220.0 * 2.0 ** (draw.integers(0, 13) / 12)
        partials = [np.sin(2 * np.pi * pitch_hz * k * time_s) / k for k in range(1, 9)]
        note = 0.1 * np.sum(partials, axis=0) * np.exp(-4.0 * time_s)
        total[start : start + RATE_HZ] += note[: len(total) - start].astype(np.float32)
    return total


def clicks(duration_s: float) -> Samples:
    total = silence(duration_s)
    total[:: RATE_HZ // 3] = 0.9
    return total


def joined(*parts: Samples) -> Samples:
    return np.concatenate(parts)


def with_pauses(pause_s: float, piece_s: float = 3.0, pieces: int = 4) -> Samples:
    """Pieces of speech between pauses."""
    whole, length = spoken(piece_s * pieces), round(piece_s * RATE_HZ)
    parts = [joined(whole[i * length : (i + 1) * length], silence(pause_s)) for i in range(pieces)]
    return joined(*parts)
