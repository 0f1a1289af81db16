"""A detector of seams: joins of chunks that stand out from the rest of the same audio.

Three measures at every join (the step between neighbouring samples, the change of level, the spectral flux across it)
are compared with the same measures at other places. Numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
_FRAME = 240  # 10 ms at 24 kHz
_SEARCH = 2  # samples to either side of a join that are searched for its step
_QUANTILE = 0.999
_MARGIN = 1.25  # how far beyond that quantile a join must stand out


@dataclass(frozen=True)
class Seam:
    """A join that stands out. `ratio`: its measure over the threshold; above 1 by definition."""

    sample: int
    measure: str
    ratio: float


def find_seams(samples: F32, joins: list[int]) -> list[Seam]:
    """The joins of `samples` (n,) that a listener may notice. Joins within 20 ms of an end are skipped."""
    joins = [join for join in joins if 2 * _FRAME < join < len(samples) - 2 * _FRAME]
    others = _other_places(len(samples), joins)
    seams = []
    for name, measure in (("step", _step), ("level", _level_db), ("flux", _flux)):
        threshold = _MARGIN * float(np.quantile([measure(samples, place) for place in others], _QUANTILE))
        values = [(join, measure(samples, join)) for join in joins]
        seams += [Seam(join, name, value / threshold) for join, value in values if value > threshold]
    return seams


def _other_places(length: int, joins: list[int]) -> list[int]:
    step = max(1, (length - 4 * _FRAME) // 6000)
    places = np.arange(2 * _FRAME, length - 2 * _FRAME, step)
    near = np.min(np.abs(places[:, None] - np.asarray(joins or [-(10**9)])[None]), axis=1) < 2 * _FRAME
    return [int(place) for place in places[~near]]


def _step(samples: F32, place: int) -> float:
    """Largest second difference around the place, which is small in a smooth signal."""
    window = samples[place - _SEARCH - 1 : place + _SEARCH + 1]
    return float(np.abs(np.diff(window, 2)).max())


def _level_db(samples: F32, place: int) -> float:
    before, after = samples[place - _FRAME : place], samples[place : place + _FRAME]
    floor = 1e-3
    return float(abs(20 * np.log10((_rms(after) + floor) / (_rms(before) + floor))))


def _flux(samples: F32, place: int) -> float:
    window = np.hanning(_FRAME)
    before, after = (np.abs(np.fft.rfft(window * samples[s : s + _FRAME])) for s in (place - _FRAME, place))
    return float(np.linalg.norm(after - before) / (np.linalg.norm(before) + np.linalg.norm(after) + 1e-3))


def _rms(samples: F32) -> float:
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))
