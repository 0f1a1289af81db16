"""Streams' real-time listeners, simulated: how far ahead of playback each is, whether it ran dry, and who will next.

Pure: time comes in as a number of seconds; nothing sleeps and nothing is played.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable


class PlaybackClock:
    """Plays from the first chunk on, in real time; stalls when it runs dry and resumes with the next chunk."""

    def __init__(self, sample_rate_hz: int) -> None:
        self._rate = sample_rate_hz
        self._dry_at_s: float | None = None  # when playback runs out of samples; None: not playing yet
        self._last_chunk_s: float | None = None
        self.underruns = 0
        self.underrun_s = 0.0
        self.max_gap_s = 0.0
        self.min_buffer_s: float | None = None  # least audio left when a chunk came; None while none has met a player

    def begin_segment(self, now_s: float) -> None:
        """A new segment's first sound is awaited: running dry between segments is the text's fault, not ours."""
        if self.lead_s(now_s) <= 0:
            self._dry_at_s = None
        self._last_chunk_s = None
        self.underruns, self.underrun_s, self.max_gap_s, self.min_buffer_s = 0, 0.0, 0.0, None

    def deliver(self, now_s: float, samples: int) -> None:
        """A chunk reached the listener."""
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
    """The listeners of all streams in the making: who still waits for a first sound, and when the others run dry."""

    def __init__(self) -> None:
        self._dry_at_s: dict[Hashable, float] = {}
        self._ordered: list[float] = []
        self._silent: set[Hashable] = set()

    def __len__(self) -> int:
        return len(self._ordered) + len(self._silent)

    def update(self, stream: Hashable, dry_at_s: float | None) -> None:
        """`stream` is being made and has audio until then; None: no audio yet."""
        self.leave(stream)
        if dry_at_s is None:
            self._silent.add(stream)
        else:
            self._dry_at_s[stream] = dry_at_s
            insort(self._ordered, dry_at_s)

    def leave(self, stream: Hashable) -> None:
        """Nothing more is to be made for `stream`. Idempotent."""
        self._silent.discard(stream)
        if (dry_at_s := self._dry_at_s.pop(stream, None)) is not None:
            del self._ordered[bisect_left(self._ordered, dry_at_s)]

    def streams_due_before(self, stream: Hashable, until_s: float) -> int:
        """How many others are due before `stream`, whose next window is due at `until_s`: those that run dry earlier,
        and, while it has no audio itself, those that have none either."""
        others_silent = len(self._silent) - 1 if stream in self._silent else 0
        own = self._dry_at_s.get(stream)
        return others_silent + bisect_left(self._ordered, until_s) - (own is not None and own < until_s)
