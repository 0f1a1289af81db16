"""Sounds that are no voice, 16 kHz: modulated tones and chords, sirens, notes, noise, chirps, signals and drums."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from engines.audio import Samples

RATE_HZ = 16_000
DURATION_S = 8.0
F64 = npt.NDArray[np.float64]
_TIME_S = np.arange(round(DURATION_S * RATE_HZ)) / RATE_HZ


def _partials(cycles: F64, count: int, roll_off: float) -> F64:
    """`count` partials; `cycles` are the fundamental's. The sound stays below 7.8 kHz."""
    highest_hz = float(np.diff(cycles).max()) * RATE_HZ
    audible = [k for k in range(1, count + 1) if k * highest_hz < 7800]
    return np.sum([np.sin(2 * np.pi * k * cycles) / k**roll_off for k in audible], axis=0)


def tremolo(
    pitches_hz: Sequence[float], rate_hz: float, depth: float, partials: int = 12, roll_off: float = 1.0
) -> F64:
    """A tone or a chord whose level swings."""
    chord = np.sum([_partials(hz * _TIME_S, partials, roll_off) for hz in pitches_hz], axis=0)
    return chord * _swing(rate_hz, depth)


def _swing(rate_hz: float, depth: float) -> F64:
    return 1 - depth / 2 + depth / 2 * np.sin(2 * np.pi * rate_hz * _TIME_S)


def vibrato(pitch_hz: float, width: float, rate_hz: float, partials: int = 10, roll_off: float = 1.0) -> F64:
    """A tone whose pitch swings by `width` of itself, as a siren's does; its level swings, too."""
    hz = pitch_hz * (1 + width * np.sin(2 * np.pi * rate_hz * _TIME_S))
    return _partials(np.cumsum(hz) / RATE_HZ, partials, roll_off) * _swing(rate_hz / 2, 0.8)


def alternating(pitches_hz: tuple[float, float], rate_hz: float, partials: int = 12, roll_off: float = 1.0) -> F64:
    """Two tones in turn, as an ambulance has them."""
    first, second = (_partials(hz * _TIME_S, partials, roll_off) for hz in pitches_hz)
    return np.where(np.sin(np.pi * rate_hz * _TIME_S) > 0, first, 1.2 * second) * _swing(rate_hz, 0.8)


def notes(rate_hz: float, decay: float, voices: int, lowest_hz: float, seed: int) -> F64:
    """A melody, or chords of `voices` notes, drawn from an octave and a half."""
    draw, total = np.random.default_rng(seed), np.zeros(len(_TIME_S))
    time_s = np.arange(round(1.6 * RATE_HZ / rate_hz)) / RATE_HZ
    envelope = np.exp(-decay * time_s) * np.minimum(1.0, time_s / 0.02)
    for start in range(0, len(total), round(RATE_HZ / rate_hz)):
        pitches_hz = lowest_hz * 2.0 ** (draw.integers(0, 18, voices) / 12)
        note = np.sum([_partials(hz * time_s, 8, 1.0) for hz in pitches_hz], axis=0) * envelope
        total[start : start + len(note)] += note[: len(total) - start]
    return total


def bursts(rate_hz: float) -> F64:
    drawn = np.random.default_rng(0).standard_normal(len(_TIME_S))
    return drawn * (np.sin(2 * np.pi * rate_hz * _TIME_S) > 0)


def chirps(low_hz: float, high_hz: float) -> F64:
    """Short sweeps with short pauses, as birds have them."""
    draw, total, start = np.random.default_rng(0), np.zeros(len(_TIME_S)), 0
    while start < len(total):
        length = round(RATE_HZ * draw.uniform(0.05, 0.2))
        hz = np.linspace(*draw.uniform(low_hz, high_hz, 2), length)
        chirp = np.sin(2 * np.pi * np.cumsum(hz) / RATE_HZ) * np.hanning(length)
        total[start : start + length] += chirp[: len(total) - start]
        start += length + round(RATE_HZ * draw.uniform(0.02, 0.15))
    return total


def tones(pitches_hz: Sequence[float], on_hz: float = 0.0) -> F64:
    """Pure tones at once, as telephones have them, in beats of `on_hz` or without end."""
    beats = np.sin(2 * np.pi * on_hz * _TIME_S) > 0 if on_hz else 1.0
    return np.sum([np.sin(2 * np.pi * hz * _TIME_S) for hz in pitches_hz], axis=0) * beats


def drums() -> F64:
    draw, total = np.random.default_rng(0), np.zeros(len(_TIME_S))
    time_s = np.arange(RATE_HZ // 4) / RATE_HZ
    for beat, start in enumerate(range(0, len(total), RATE_HZ // 4)):
        kick = np.sin(2 * np.pi * (60 + 100 * np.exp(-30 * time_s)) * time_s) * np.exp(-12 * time_s)
        snare = (draw.standard_normal(len(time_s)) + np.sin(2 * np.pi * 190 * time_s)) * np.exp(-16 * time_s)
        total[start : start + len(time_s)] += (kick, 0.4 * snare, snare)[beat % 3][: len(total) - start]
    return total


MAJOR = (1.0, 1.26, 1.5)


def _chord(lowest_hz: float) -> list[float]:
    return [lowest_hz * ratio for ratio in MAJOR]


# Those of the first group are what the voice detector takes for speech, by itself.
LIKE_A_VOICE: dict[str, Callable[[], F64]] = {
    "a chord of two, 4 Hz": lambda: tremolo(_chord(102)[::2], 3.6, 0.8, 3, 0.5),
    "a chord of two, 5 Hz": lambda: tremolo(_chord(160)[::2], 4.9, 0.7, 3, 0.8),
    "a tremolo at 88 Hz": lambda: tremolo([88], 2.8, 0.85, 11),
    "a tremolo at 130 Hz": lambda: tremolo([130], 2.5, 0.9, 7, 1.6),
    "a tremolo at 139 Hz": lambda: tremolo([139], 4.6, 0.9, 5, 0.8),
    "a tremolo at 183 Hz": lambda: tremolo([183], 5.8, 0.73, 15, 1.3),
    "a vibrato at 109 Hz": lambda: vibrato(109, 0.1, 4.0, 5),
    "a vibrato at 212 Hz": lambda: vibrato(212, 0.25, 4.0, 10, 1.9),
    "a siren at 200 Hz": lambda: vibrato(203, 0.4, 3.4, 8, 0.5),
    "a siren at 280 Hz": lambda: vibrato(281, 0.3, 5.0, 11, 0.7),
    "two notes in turn at 110 Hz": lambda: alternating((109, 125), 2.8, 11, 1.25),
    "two notes in turn at 128 Hz": lambda: alternating((128, 155), 5.4, 6, 1.1),
}
OTHERS: dict[str, Callable[[], F64]] = {
    "a chord of three, 2 Hz": lambda: tremolo(_chord(220), 2.0, 1.0, 8),
    "a minor chord": lambda: tremolo([196, 233, 294], 2.0, 0.9),
    "a chord without end": lambda: tremolo(_chord(130), 0.01, 0.0),
    "octaves": lambda: tremolo([100, 200, 400], 4.0, 0.9),
    "a slow siren": lambda: vibrato(700, 0.5, 0.25, 8),
    "an ambulance": lambda: alternating((440, 585), 1.0, 8),
    "a melody": lambda: notes(4.0, 4.0, 1, 220, 0),
    "a slow melody": lambda: notes(2.0, 0.1, 1, 262, 9),
    "a bass": lambda: notes(4.0, 2.0, 1, 55, 5),
    "chords": lambda: notes(2.0, 1.5, 3, 130, 1),
    "strings": lambda: notes(1.0, 0.2, 3, 130, 4),
    "bursts of noise": lambda: bursts(3.0),
    "birds": lambda: chirps(2000, 5000),
    "low chirps": lambda: chirps(300, 1200),
    "a dial tone": lambda: tones([350, 440]),
    "a busy line": lambda: tones([480, 620], 2.0),
    "a line that rings": lambda: tones([440, 480], 0.5),
    "drums": drums,
    "drums and a bass": lambda: drums() + 0.3 * notes(4.0, 2.0, 1, 55, 5),
}


def made(name: str, noise_db: float | None = None) -> Samples:
    """A sound by its name, with white noise this far below it."""
    sound = (LIKE_A_VOICE | OTHERS)[name]()
    return with_noise((0.3 * sound / np.abs(sound).max()).astype(np.float32), noise_db)


def with_noise(samples: Samples, noise_db: float | None) -> Samples:
    if noise_db is None:
        return samples
    level = np.sqrt(np.mean(np.square(samples)) / 10 ** (noise_db / 10))
    noise = level * np.random.default_rng(0).standard_normal(len(samples))
    return (samples + noise).astype(np.float32)
