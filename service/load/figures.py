"""Statistics of a load's outcomes: percentiles, counts, and whether they are within bounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from service.load.run import Outcome


@dataclass(frozen=True)
class Bounds:
    """Requirements on a load: no underrun, no error, and the 95th percentile of onset within `onset_p95_s`."""

    onset_p95_s: float


@dataclass(frozen=True)
class Figures:
    """Statistics of one load. `goodput`: seconds of audio per second of load, of streams within bounds only."""

    rate_per_s: float
    streams: int
    onset_p50_s: float
    onset_p95_s: float
    onset_p99_s: float
    rtf_p50: float
    underruns: int
    underrun_s: float
    goodput: float
    late_p99_s: float
    errors: dict[str, int] = field(default_factory=dict)

    def within(self, bounds: Bounds) -> bool:
        return not self.errors and not self.underruns and self.onset_p95_s <= bounds.onset_p95_s


def figures_of(outcomes: Sequence[Outcome], rate_per_s: float, duration_s: float, bounds: Bounds) -> Figures:
    """Percentiles are over streams without an error; NaN if there is none."""
    complete = [outcome for outcome in outcomes if not outcome.error]
    onsets = [outcome.onset_s for outcome in complete if outcome.onset_s is not None]
    good = [o for o in complete if not o.underruns and o.onset_s is not None and o.onset_s <= bounds.onset_p95_s]
    return Figures(
        rate_per_s=rate_per_s,
        streams=len(outcomes),
        onset_p50_s=percentile(onsets, 50),
        onset_p95_s=percentile(onsets, 95),
        onset_p99_s=percentile(onsets, 99),
        rtf_p50=percentile([outcome.wall_s / outcome.audio_s for outcome in complete], 50),
        underruns=sum(outcome.underruns for outcome in complete),
        underrun_s=sum(outcome.underrun_s for outcome in complete),
        goodput=sum(outcome.audio_s for outcome in good) / duration_s,
        late_p99_s=percentile([outcome.late_s for outcome in outcomes], 99),
        errors=dict(Counter(outcome.error for outcome in outcomes if outcome.error)),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of all values do not exceed; NaN if there is none."""
    return float(np.percentile(values, percent, method="inverted_cdf")) if values else float("nan")
