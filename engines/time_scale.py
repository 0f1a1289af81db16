"""Time-scale modification of speech as it is made: another speed at the same pitch.

WSOLA: the output is made of stretches of the input, each taken from where the speed puts it, shifted by up to 8 ms so
that it continues the waveform before it, and faded in over what would have followed there. NumPy only.
Source: W. Verhelst, M. Roelands, "An overlap-add technique based on waveform similarity (WSOLA)", ICASSP 1993.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engines.errors import InvalidInput
from engines.model_spec import SAMPLE_RATE_HZ

MIN_SPEED, MAX_SPEED = 0.5, 2.0

F32 = npt.NDArray[np.float32]

_HOP = SAMPLE_RATE_HZ * 20 // 1000  # output samples per stretch
_OVERLAP = SAMPLE_RATE_HZ * 20 // 1000  # of which so many are faded; 10 ms are less intelligible
_REACH = SAMPLE_RATE_HZ * 8 // 1000  # a stretch is taken from up to so far before or behind its nominal place
_FADE_IN: F32 = (0.5 - 0.5 * np.cos(np.pi * (np.arange(_OVERLAP) + 0.5) / _OVERLAP)).astype(np.float32)
_QUIET_POWER = 1e-9  # of full scale: below it there is no waveform to continue
# of speech: 40 ms
MAX_HELD_SAMPLES = max(_REACH + max(_HOP, _OVERLAP + int(_HOP * (1 - MIN_SPEED))), int(_HOP * MAX_SPEED))
_EMPTY: F32 = np.zeros(0, np.float32)


def check_speed(speed: float, field: str = "settings.speed") -> float:
    """Returns the speed. Raises InvalidInput if it is not from 0.5 to 2."""
    if not MIN_SPEED <= speed <= MAX_SPEED:  # so NaN is refused as well
        allowed = f"from {MIN_SPEED:g} to {MAX_SPEED:g}"
        message = f"{field} is {speed:g}; it must be {allowed}, where 1 is the speed of the voice."
        raise InvalidInput(field, message, "SPEED_OUT_OF_RANGE", value=speed, allowed=allowed)
    return speed


def bounded_speed(speed: float) -> float:
    """Returns the speed, or the nearest that is allowed."""
    return min(max(speed, MIN_SPEED), MAX_SPEED)


def scaled_samples(samples: int, speed: float) -> int:
    """Returns the length of `samples` of a segment's speech at `speed`, and so the place of that sample in it.

    The place is that of a sample's time: a sample is heard at most 8 ms earlier or later.
    """
    return round(samples / speed)


class TimeScale:
    """Changes the speed of one segment's samples. The pieces join without seams, however they were cut.

    Less than `MAX_HELD_SAMPLES` of speech are held back; after the last piece, exactly `scaled_samples` of all samples
    have been returned. At speed 1 the samples pass unchanged and nothing is held back.
    """

    def __init__(self, speed: float) -> None:
        """Raises InvalidInput if `speed` is not from 0.5 to 2."""
        self.speed = check_speed(speed)
        self._input = _EMPTY  # from sample `_dropped` on
        self._dropped = 0
        self._next = 0  # the sample that would follow the last stretch
        self._fed = self._made = 0

    def feed(self, samples: F32, *, last: bool = False) -> F32:
        """Returns the samples that are final with these; `last`: the segment ends with them."""
        if self.speed == 1.0:
            return samples
        self._fed += len(samples)
        if not last:
            return self._stretches(samples)
        missing = scaled_samples(self._fed, self.speed) - self._made
        silence = np.zeros(2 * MAX_HELD_SAMPLES, np.float32)  # enough for the stretches that reach beyond the end
        return self._stretches(np.concatenate([samples, silence]))[:missing]

    def _stretches(self, samples: F32) -> F32:
        """Makes stretches while the input holds all that they may be taken from."""
        self._input = np.concatenate([self._input, samples])
        available = self._dropped + len(self._input)
        pieces: list[F32] = []
        while True:
            nominal = round(self._made * self.speed)
            end = round((self._made + _HOP) * self.speed)
            if max(nominal + _REACH + _HOP, self._next + _OVERLAP, end) > available:
                break
            pieces.append(self._stretch(nominal))
            self._made += _HOP
        self._drop(min(self._next, round(self._made * self.speed) - _REACH))
        return np.concatenate(pieces) if pieces else _EMPTY

    def _stretch(self, nominal: int) -> F32:
        start = self._best_start(nominal) if self._made else 0
        stretch = self._at(start, _HOP).copy()
        if self._made:
            before = self._at(self._next, _OVERLAP)
            stretch[:_OVERLAP] = before + (stretch[:_OVERLAP] - before) * _FADE_IN
        self._next = start + _HOP
        return stretch

    def _best_start(self, nominal: int) -> int:
        """Returns where, near `nominal`, the input is most like what would follow the last stretch."""
        first = max(nominal - _REACH, self._dropped)
        wanted = self._at(self._next, _OVERLAP)
        region = self._at(first, nominal + _REACH - first + _OVERLAP)
        if float(wanted @ wanted) < _QUIET_POWER * _OVERLAP:
            return nominal
        sums = np.concatenate([[0.0], np.cumsum(np.square(region, dtype=np.float64))])
        power = np.maximum(sums[_OVERLAP:] - sums[:-_OVERLAP], _QUIET_POWER * _OVERLAP)
        likeness = np.correlate(region, wanted, "valid") / np.sqrt(power)
        return first + int(np.argmax(likeness))

    def _at(self, first: int, samples: int) -> F32:
        return self._input[first - self._dropped :][:samples]

    def _drop(self, first: int) -> None:
        """Forgets the samples before `first`."""
        if first > self._dropped:
            self._input = self._input[first - self._dropped :]
            self._dropped = first
