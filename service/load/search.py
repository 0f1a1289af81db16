"""The search for the highest arrival rate that a server sustains: doubles the rate until it fails, then bisects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from service.load.figures import Bounds, Figures

Trial = Callable[[float], Awaitable[Figures]]


async def highest_rate(
    trial: Trial, bounds: Bounds, *, first_per_s: float, precision: float = 0.15, max_trials: int = 12
) -> tuple[float, list[Figures]]:
    """Returns the highest rate whose trial stayed within bounds (0 if none did), and every trial in order.

    Stops when a failed rate is at most the factor 1 + `precision` above a sustained one.
    """
    good, bad, rate = 0.0, float("inf"), first_per_s
    trials: list[Figures] = []
    while len(trials) < max_trials and (good == 0.0 or bad > good * (1 + precision)):
        figures = await trial(rate)
        trials.append(figures)
        if figures.within(bounds):
            good = rate
        else:
            bad = rate
        rate = good * 2 if bad == float("inf") else (good + bad) / 2 if good else bad / 2
    return good, trials
