"""Simulated playback of every stream in real time: how far ahead of its listener it is, and whether it ran dry.

Time comes in as a number of seconds; nothing sleeps.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable


class PlaybackClock:
    """One stream's player: plays from the first chunk on, stalls if it runs dry, resumes with the next chunk."""

    def __init__(self, sample_rate_hz: int) -> None:
        self._rate = sample_rate_hz
        self._dry_at_s: float | None = None  # when playback runs out of samples; None: not playing yet
        self._last_chunk_s: float | None = None
        self.underruns = 0
        self.underrun_s = 0.0
        self.max_gap_s = 0.0
        self.min_buffer_s: float | None = None  # least audio left when a chunk came during playback

    def begin_segment(self, now_s: float) -> None:
        """Start the next segment's figures.

        Underruns between segments are not counted: there was no text to speak.
        """
        if self.lead_s(now_s) <= 0:
            self._dry_at_s = None
        self._last_chunk_s = None
        self.underruns, self.underrun_s, self.max_gap_s, self.min_buffer_s = 0, 0.0, 0.0, None

    def deliver(self, now_s: float, samples: int) -> None:
        """Add a chunk to the player's buffer."""
        if self._last_chunk_s is not None:
            self.max_gap_s = max(self.max_gap_s, now_s - self._last_chunk_s)
        self._last_chunk_s = now_s
        if self._dry_at_s is not None:
            left_s = max(0.0, self.lead_s(now_s))
            self.min_buffer_s = left_s if self.min_buffer_s is None else min(left_s, self.min_buffer_s)
        dry_at_s = now_s if self._dry_at_s is None else self._dry_at_s
        if now_s > dry_at_s:
            self.underruns += 1
            self.underrun_s += now_s - dry_at_s
            dry_at_s = now_s
        self._dry_at_s = dry_at_s + samples / self._rate

    @property
    def dry_at_s(self) -> float | None:
        """When playback runs, or ran, out of samples; None before the first chunk."""
        return self._dry_at_s

    def lead_s(self, now_s: float) -> float:
        """Seconds of audio delivered and not yet played; 0 before the first chunk, negative while stalled."""
        return 0.0 if self._dry_at_s is None else self._dry_at_s - now_s


class ActiveStreams:
    """All streams that are being spoken, ordered by when their listeners run dry."""

    def __init__(self) -> None:
        self._dry_at_s: dict[Hashable, float] = {}
        self._ordered: list[float] = []
        self._silent: set[Hashable] = set()  # streams without audio yet

    def __len__(self) -> int:
        return len(self._ordered) + len(self._silent)

    def update(self, stream: Hashable, dry_at_s: float | None) -> None:
        """Add `stream`, or set when its audio ends; None: it has no audio yet."""
        self.leave(stream)
        if dry_at_s is None:
            self._silent.add(stream)
        else:
            self._dry_at_s[stream] = dry_at_s
            insort(self._ordered, dry_at_s)

    def leave(self, stream: Hashable) -> None:
        """Remove `stream`. Idempotent."""
        self._silent.discard(stream)
        if (dry_at_s := self._dry_at_s.pop(stream, None)) is not None:
            del self._ordered[bisect_left(self._ordered, dry_at_s)]

    def streams_due_before(self, stream: Hashable, until_s: float) -> tuple[int, int]:
        """How many others are due before `stream`, whose next window is due at `until_s`: (speaking, silent).

        These are the streams that run dry earlier and, if `stream` has no audio itself, those that have none either.
        """
        silent = len(self._silent) - 1 if stream in self._silent else 0
        own = self._dry_at_s.get(stream)
        return bisect_left(self._ordered, until_s) - (own is not None and own < until_s), silent
