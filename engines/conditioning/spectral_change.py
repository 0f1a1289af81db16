"""Which parts of a recording change as speech does: what a voice detector takes for a voice may be a modulated chord.

Two figures decide, each over a few seconds. Speech takes on many spectral shapes (vowels, fricatives, nasals), so the
spread of its shapes is wide. And it does not repeat itself: a shape and its neighbours do not come back exactly within
two seconds, as those of tremolo, vibrato, sirens, alternating notes and other machines do.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from engines.audio import Samples

F64 = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

RATE_HZ = 16_000
_WINDOW_SAMPLES, HOP_SAMPLES = 512, 256
HOP_S = HOP_SAMPLES / RATE_HZ
_BANDS, _LOW_HZ, _HIGH_HZ = 24, 80.0, 7600.0
_FLOOR_DB = 25.0  # below a frame's loudest band: weaker ones are noise
_QUIET_DB = 25.0  # below the loud frames: quieter ones are pauses
_PATCH = 6  # frames that come back together, 0.1 s
_LAGS = range(16, 156)  # 0.26 to 2.5 s; a clip that somebody has looped comes back later
_BLOCK, _STEP = 256, 64  # frames: what is judged together, 4 s, every second
_MIN_FRAMES = 64  # of speech in a block, or it is not judged
# Voices, with noise 5 dB below them, too: a spread of at least 2.9 dB and a novelty of at least 1.7 dB in every block.
# Modulated chords and tones, vibrato and alternating notes: at most 0.3 dB of novelty; with noise 20 dB below them
# their spread or their novelty is higher, up to the detector's own limits.
_MIN_SPREAD_DB, _MIN_NOVELTY_DB = 2.2, 1.0


def changing(samples: Samples, is_speech: Flags) -> Flags:
    """Returns those frames of `is_speech` (one per HOP_SAMPLES of mono 16 kHz samples) that change as speech does.

    Frames without enough of others around them to judge are returned as they are. Blocks, about 2 ms per second.
    """
    shapes, power = _shapes(samples)
    length = min(len(shapes), len(is_speech))
    shapes, power, speech = shapes[:length], power[:length], is_speech[:length]
    if speech.sum() < _MIN_FRAMES:
        return is_speech
    loud = speech & (power > np.quantile(power[speech], 0.9) * 10 ** (-_QUIET_DB / 10))
    novelty = _novelty(shapes, loud)
    judged, alive = np.zeros(length, int), np.zeros(length, int)  # how many blocks hold a frame
    for start in range(0, max(1, length - _BLOCK + _STEP), _STEP):
        block = slice(start, start + _BLOCK)
        figures = _figures(shapes[block], novelty[block], loud[block])
        if figures is not None:
            judged[block] += 1
            alive[block] += figures[0] >= _MIN_SPREAD_DB and figures[1] >= _MIN_NOVELTY_DB
    kept = is_speech.copy()
    kept[:length] &= 2 * alive >= judged  # at the border between a tone and speech blocks hold both
    return kept


def _figures(shapes: F64, novelty: F64, loud: Flags) -> tuple[float, float] | None:
    """Returns the spread and the novelty of a block in dB; None if there is too little speech in it."""
    known = loud & np.isfinite(novelty)
    if known.sum() < _MIN_FRAMES:
        return None
    return float(np.sqrt(shapes[loud].var(axis=0).mean())), float(np.median(novelty[known]))


def _shapes(samples: Samples) -> tuple[F64, F64]:
    """Returns each frame's band levels in dB without their mean, (frames, bands), and its power."""
    if len(samples) < _WINDOW_SAMPLES:
        return np.zeros((0, _BANDS)), np.zeros(0)
    windows = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW_SAMPLES)[::HOP_SAMPLES]
    power = np.square(np.abs(np.fft.rfft(windows * np.hanning(_WINDOW_SAMPLES), axis=1)))
    bands = power @ _filters()
    loudest = bands.max(axis=1, keepdims=True)
    levels = 10 * np.log10(np.maximum(bands, loudest * 10 ** (-_FLOOR_DB / 10)) + 1e-20)
    return levels - levels.mean(axis=1, keepdims=True), power.sum(axis=1)


@cache
def _filters() -> F64:
    """Triangles on the mel scale, (frequencies, bands)."""
    low, high = (2595 * np.log10(1 + hz / 700) for hz in (_LOW_HZ, _HIGH_HZ))
    edges = 700 * (10 ** (np.linspace(low, high, _BANDS + 2) / 2595) - 1)
    hz = np.fft.rfftfreq(_WINDOW_SAMPLES, 1 / RATE_HZ)[:, None]
    rising, falling = (hz - edges[:-2]) / np.diff(edges)[:-1], (edges[2:] - hz) / np.diff(edges)[1:]
    filters: F64 = np.clip(np.minimum(rising, falling), 0.0, None)
    return filters


def _novelty(shapes: F64, loud: Flags) -> F64:
    """Returns how far each frame, with those behind it, is from the most similar one in the surrounding 2.5 s, in dB.

    NaN where the frame or one behind it is not loud, or no other is.
    """
    whole = np.convolve(loud, np.ones(_PATCH), "full")[_PATCH - 1 :] == _PATCH  # the frame and all of its patch
    nearest = np.full(len(shapes), np.inf)
    for lag in _LAGS:
        if lag + _PATCH >= len(shapes):
            break
        distance = np.square(shapes[lag:] - shapes[:-lag]).mean(axis=1)
        patch = np.convolve(distance, np.full(_PATCH, 1 / _PATCH), "full")[_PATCH - 1 :]
        patch[~(whole[lag:] & whole[:-lag])] = np.inf
        nearest[:-lag] = np.minimum(nearest[:-lag], patch)
        nearest[lag:] = np.minimum(nearest[lag:], patch)
    nearest[~np.isfinite(nearest)] = np.nan
    novelty: F64 = np.sqrt(nearest)
    return novelty
