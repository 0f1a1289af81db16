"""A simulated real-time player of one stream, which measures the audible onset and underruns.

It does not read a clock: callers pass the time in seconds. The client's counterpart of engines/playback.py, whose
figures must be the same.
"""

from __future__ import annotations

import numpy as np

RATE_HZ = 24_000
_AUDIBLE = 32767 * 10 ** (-45 / 20)  # 45 dB below full scale: above dither and fades, below speech


class Player:
    """Starts with the first chunk and pauses on an underrun until the next. Chunks are PCM s16le at 24 kHz."""

    def __init__(self) -> None:
        self.first_chunk_s: float | None = None
        self.onset_s: float | None = None  # when the first audible sample is played
        self.last_chunk_s: float | None = None
        self.samples = 0
        self.underruns = 0
        self.underrun_s = 0.0
        self._ends_at_s = 0.0

    def add(self, now_s: float, data: bytes) -> None:
        """Adds a chunk that arrived at `now_s`."""
        samples = np.frombuffer(data, "<i2")
        if self.first_chunk_s is None:
            self.first_chunk_s = self._ends_at_s = now_s
        if now_s > self._ends_at_s:
            self.underruns += 1
            self.underrun_s += now_s - self._ends_at_s
            self._ends_at_s = now_s
        if self.onset_s is None:
            audible = np.flatnonzero(np.abs(samples.astype(np.int32)) > _AUDIBLE)
            self.onset_s = self._ends_at_s + audible[0] / RATE_HZ if len(audible) else None
        self._ends_at_s += len(samples) / RATE_HZ
        self.samples += len(samples)
        self.last_chunk_s = now_s

    @property
    def audio_s(self) -> float:
        return self.samples / RATE_HZ
