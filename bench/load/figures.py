"""Statistics of a load: percentiles, counts, and whether the bounds hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.load.run import Outcome


@dataclass(frozen=True)
class Bounds:
    """The bounds of a good load: no underruns, no errors, and an onset within `onset_p95_s` for 95 % of the streams."""

    onset_p95_s: float


@dataclass(frozen=True)
class Figures:
    """The statistics of a load. `goodput` is seconds of audio per second of load, of streams within the bounds."""

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
    """Returns the statistics; percentiles are over the streams without errors, NaN if there are none."""
    completed = [outcome for outcome in outcomes if not outcome.error]
    onsets = [outcome.onset_s for outcome in completed if outcome.onset_s is not None]
    good = [o for o in completed if not o.underruns and o.onset_s is not None and o.onset_s <= bounds.onset_p95_s]
    return Figures(
        rate_per_s=rate_per_s,
        streams=len(outcomes),
        onset_p50_s=percentile(onsets, 50),
        onset_p95_s=percentile(onsets, 95),
        onset_p99_s=percentile(onsets, 99),
        rtf_p50=percentile([outcome.wall_s / outcome.audio_s for outcome in completed], 50),
        underruns=sum(outcome.underruns for outcome in completed),
        underrun_s=sum(outcome.underrun_s for outcome in completed),
        goodput=sum(outcome.audio_s for outcome in good) / duration_s,
        late_p99_s=percentile([outcome.late_s for outcome in outcomes], 99),
        errors=dict(Counter(outcome.error for outcome in outcomes if outcome.error)),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` percent of all values do not exceed; NaN for no values."""
    return float(np.percentile(values, percent, method="inverted_cdf")) if values else float("nan")
