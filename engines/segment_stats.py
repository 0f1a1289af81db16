"""The recorder of a segment's figures while its chunks are delivered."""

from __future__ import annotations

from collections.abc import Callable

from engines.api import SegmentStats, WordGuardReport
from engines.playback import PlaybackClock
from engines.s3gen.streaming.window_queue import Decoded


class SegmentStatsRecorder:
    """Counts from its construction on."""

    def __init__(self, playback: PlaybackClock, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started_s = clock()
        self._playback = playback
        self._playback.begin_segment(self._started_s)
        self._samples = self._windows = 0
        self._ttfa_s = 0.0
        self._s3gen_s = 0.0

    def deliver(self, decoded: Decoded) -> None:
        """Record that a window's samples are delivered now."""
        now_s, samples = self._clock(), len(decoded.samples)
        if self._windows == 0:
            self._ttfa_s = now_s - self._started_s
        self._samples += samples
        self._windows += 1
        self._s3gen_s += decoded.queue_s + decoded.decode_s
        self._playback.deliver(now_s, samples)

    def stats(
        self,
        *,
        speech_tokens: int,
        t3_s: float,
        hit_token_limit: bool,
        hit_runaway_limit: bool,
        word_guard: WordGuardReport | None = None,
    ) -> SegmentStats:
        """Returns everything recorded so far; the arguments are T3's share."""
        return SegmentStats(
            speech_tokens=speech_tokens,
            samples=self._samples,
            windows=self._windows,
            ttfa_s=self._ttfa_s,
            t3_s=t3_s,
            s3gen_s=self._s3gen_s,
            max_gap_s=self._playback.max_gap_s,
            min_buffer_s=self._playback.min_buffer_s,
            underruns=self._playback.underruns,
            underrun_s=self._playback.underrun_s,
            hit_token_limit=hit_token_limit,
            hit_runaway_limit=hit_runaway_limit,
            word_guard=word_guard,
        )
