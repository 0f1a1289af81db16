"""What decoding costs on this device: how much of a call its rows share, and how fast the device is at the moment.

Work is counted in tokens: those that go through the flow plus those that go through the vocoder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

_SMOOTHING = 0.25  # weight of the newest measurement
# A batch grows while the part of a call that its rows share is at least this large: beyond it another row saves next
# to nothing and only keeps later windows waiting.
_WORTH_SHARING = 0.125


@dataclass(frozen=True)
class Calibration:
    """What is measured on an idle device before it serves.

    A GPU is measured with windows as large as those that it serves: with short ones it waits for launches, which rows
    share, and calls of many rows would seem to cost a fraction of what they do.

    prompt_tokens  of the voice's prompt in the windows
    rows           of the calls
    steady_after   turns that do not count: kernels are chosen in them, and each of a GPU's buffers takes its turn
    turns          that count, each call with its best
    """

    prompt_tokens: int = 25
    rows: tuple[int, ...] = (1, 4)
    steady_after: int = 1
    turns: int = 1


CPU_CALIBRATION = Calibration()
GPU_CALIBRATION = Calibration(prompt_tokens=250, rows=(1, 4, 16), steady_after=6, turns=3)


class _Pace:
    """The seconds that a unit of work takes at the moment."""

    def __init__(self) -> None:
        self._weight = 0.0
        self.seconds = 0.0

    @property
    def known(self) -> bool:
        return self._weight > 0

    def observe(self, seconds: float) -> None:
        self._weight += _SMOOTHING * (1.0 - self._weight)
        share = _SMOOTHING / self._weight  # the first measurement counts whole, later ones less and less
        self.seconds += share * (seconds - self.seconds)


class DecodeTimes:
    """A cost model of calls: seconds = pace x (shared work + work of all rows).

    `shared_work`, the cost of a call whatever its rows, depends on nets and device. It is measured once, on an idle
    device, because on a busy one other work on the same cores changes every call too much. The pace follows the calls
    beside which T3 made tokens, as it does when the next stream begins; the last calls of an utterance have the device
    for themselves, and promise the next stream's first windows too much. Other calls count until there is such a one.
    """

    def __init__(self, shared_work: float = 300.0) -> None:
        self.shared_work = shared_work
        self._alone, self._beside_t3 = _Pace(), _Pace()

    @property
    def _pace_s(self) -> float:
        return (self._beside_t3 if self._beside_t3.known else self._alone).seconds

    def calibrate(self, work: int, seconds: Mapping[int, float]) -> None:
        """Set `shared_work` from the seconds of calls by their rows of `work` each, at least two: by the line through
        them with the least squares of errors."""
        mean_rows, mean_s = (sum(values) / len(seconds) for values in (seconds.keys(), seconds.values()))
        spread = sum((rows - mean_rows) ** 2 for rows in seconds)
        slope_s = sum((rows - mean_rows) * (took_s - mean_s) for rows, took_s in seconds.items()) / spread
        alone_s = seconds[min(seconds)]
        if slope_s < 0.01 * alone_s:  # measured on a device that was not idle
            slope_s, mean_s, mean_rows = 0.01 * alone_s, alone_s, 1.0
        self.shared_work = max(0.0, mean_s - slope_s * mean_rows) / slope_s * work

    def observe(self, work: int, seconds: float, *, beside_t3: bool = False) -> None:
        """Record that a call took `seconds` for `work` in all its rows, and whether T3 made tokens meanwhile."""
        pace = self._beside_t3 if beside_t3 else self._alone
        pace.observe(seconds / (self.shared_work + work))

    def call_s(self, work: int) -> float:
        """Expected seconds of one call; 0 before the first measurement."""
        return self._pace_s * (self.shared_work + work)

    def rows_s(self, rows: int, work: int, max_rows: int) -> float:
        """Expected seconds of as many calls as `rows` rows of `work` each need."""
        calls = math.ceil(rows / self.worthwhile_rows(work, max_rows))
        return self._pace_s * (calls * self.shared_work + rows * work)

    def worthwhile_rows(self, work: int, max_rows: int) -> int:
        """How many rows of `work` each should share a call, at most `max_rows`."""
        rows = self.shared_work * (1 / _WORTH_SHARING - 1) / max(work, 1)
        return min(max_rows, max(1, int(rows)))


class DecodeForecast:
    """Expected times on one device, the running call included. Times are on the event loop's clock."""

    def __init__(self, times: DecodeTimes, max_rows: int, *, cached: bool) -> None:
        """`cached`: whether the runtime remembers prompt and left context instead of computing them in every window."""
        self._times, self._max_rows, self._cached = times, max_rows, cached
        self.free_at_s = -math.inf  # expected end of the running call

    def busy_s(self, now_s: float) -> float:
        """Seconds until the running call is expected to end; 0 on an idle device."""
        return max(0.0, self.free_at_s - now_s)

    def call_s(self, context_tokens: int, block_tokens: int, streams: int) -> float:
        """Expected seconds of a call with as many windows as share one while `streams` streams are active.

        context_tokens: the voice's prompt and the left context
        block_tokens: new tokens and lookahead
        """
        work = self._work(context_tokens, block_tokens)
        return self._times.call_s(work * min(streams, self._times.worthwhile_rows(work, self._max_rows)))

    def queue_s(self, context_tokens: int, block_tokens: int, windows: int, now_s: float) -> float:
        """Expected seconds until `windows` windows of that size are decoded after the running call."""
        work = self._work(context_tokens, block_tokens)
        return self.busy_s(now_s) + self._times.rows_s(windows, work, self._max_rows)

    def _work(self, context_tokens: int, block_tokens: int) -> int:
        return 2 * block_tokens + (0 if self._cached else context_tokens)
