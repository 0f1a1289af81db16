"""What decoding costs on this device: how much of a call its rows share, and how fast the device is at the moment.

Pure arithmetic on measured numbers; knows no runtime, no queue and no clock. Work is counted in tokens: those that go
through the flow plus those that go through the vocoder.
"""

from __future__ import annotations

import math

_SMOOTHING = 0.25  # weight of the newest measurement
# A batch grows while what its rows share is at least this share of the call: beyond it another row saves next to
# nothing and only keeps newcomers waiting.
_WORTH_SHARING = 0.125


class DecodeTimes:
    """seconds of a call = pace x (shared + work of all its rows).

    `shared_work`, what a call costs whatever its rows, depends on nets and device and is measured once, on an idle
    device: other work on the same cores changes so much from call to call that it cannot be told from the calls of a
    busy one. The pace follows the calls that are made.
    """

    def __init__(self, shared_work: float = 300.0) -> None:
        self.shared_work = shared_work
        self._weight = 0.0
        self._pace_s = 0.0

    def calibrate(self, work: int, alone_s: float, rows: int, together_s: float) -> None:
        """One row of `work` took `alone_s` and `rows` of them in one call `together_s`."""
        row_s = max((together_s - alone_s) / (rows - 1), 0.01 * alone_s)
        self.shared_work = max(0.0, alone_s - row_s) / row_s * work

    def observe(self, work: int, seconds: float) -> None:
        """A call with so much work in all its rows took `seconds`."""
        self._weight += _SMOOTHING * (1.0 - self._weight)
        share = _SMOOTHING / self._weight  # the first measurement counts whole, later ones less and less
        self._pace_s += share * (seconds / (self.shared_work + work) - self._pace_s)

    def call_s(self, work: int) -> float:
        """Expected seconds of one call; 0 while nothing is known."""
        return self._pace_s * (self.shared_work + work)

    def rows_s(self, rows: int, work: int, max_rows: int) -> float:
        """Expected seconds of as many calls as `rows` rows of `work` each need."""
        calls = math.ceil(rows / self.worthwhile_rows(work, max_rows))
        return self._pace_s * (calls * self.shared_work + rows * work)

    def worthwhile_rows(self, work: int, max_rows: int) -> int:
        """How many rows of `work` each should share a call, if there are that many."""
        rows = self.shared_work * (1 / _WORTH_SHARING - 1) / max(work, 1)
        return min(max_rows, max(1, int(rows)))
