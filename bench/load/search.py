"""The highest rate of arrivals that a server carries: doubling until it breaks, then halving the gap. Pure but for
the trial that it is given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from bench.load.figures import Bounds, Figures

Trial = Callable[[float], Awaitable[Figures]]


async def highest_rate(
    trial: Trial, bounds: Bounds, *, first_per_s: float, precision: float = 0.15, most_trials: int = 12
) -> tuple[float, list[Figures]]:
    """The highest rate tried that stayed within bounds (0 when none did), and every trial in order.

    Ends once a rate that failed is at most `precision` above one that did not.
    """
    good, bad, rate = 0.0, float("inf"), first_per_s
    trials: list[Figures] = []
    while len(trials) < most_trials and (good == 0.0 or bad > good * (1 + precision)):
        figures = await trial(rate)
        trials.append(figures)
        if figures.within(bounds):
            good = rate
        else:
            bad = rate
        rate = good * 2 if bad == float("inf") else (good + bad) / 2 if good else bad / 2
    return good, trials
