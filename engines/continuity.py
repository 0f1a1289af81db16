"""A stream's real-time listener, simulated: how far ahead of playback the stream is and whether it ran dry.

Pure: time comes in as a number of seconds; nothing sleeps and nothing is played.
"""

from __future__ import annotations


class Listener:
    """Plays from the first chunk on, in real time; stalls when it runs dry and resumes with the next chunk."""

    def __init__(self, sample_rate_hz: int) -> None:
        self._rate = sample_rate_hz
        self._dry_at_s: float | None = None  # when playback runs out of samples; None: not playing yet
        self._last_chunk_s: float | None = None
        self.underruns = 0
        self.underrun_s = 0.0
        self.max_gap_s = 0.0

    def begin_segment(self, now_s: float) -> None:
        """A new segment's first sound is awaited: running dry between segments is the text's fault, not ours."""
        if self.lead_s(now_s) <= 0:
            self._dry_at_s = None
        self._last_chunk_s = None
        self.underruns, self.underrun_s, self.max_gap_s = 0, 0.0, 0.0

    def deliver(self, now_s: float, samples: int) -> None:
        """A chunk reached the listener."""
        if self._last_chunk_s is not None:
            self.max_gap_s = max(self.max_gap_s, now_s - self._last_chunk_s)
        self._last_chunk_s = now_s
        dry_at_s = now_s if self._dry_at_s is None else self._dry_at_s
        if now_s > dry_at_s:
            self.underruns += 1
            self.underrun_s += now_s - dry_at_s
            dry_at_s = now_s
        self._dry_at_s = dry_at_s + samples / self._rate

    def lead_s(self, now_s: float) -> float:
        """Seconds of audio delivered and not yet played; 0 before the first chunk, negative while stalled."""
        return 0.0 if self._dry_at_s is None else self._dry_at_s - now_s
