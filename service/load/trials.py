"""Trials at one rate or, by search, at several, and their table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.load.arrivals import poisson
from service.load.figures import Bounds, Figures, figures_of
from service.load.run import run_load
from service.load.search import highest_rate
from service.load.surfaces import Surface

MAX_STREAMS = 5_000  # in one trial
HEADER = ("streams/s", "n", "onset p50 s", "p95", "p99", "RTF", "underruns", "goodput", "late p99 s", "errors")


@dataclass(frozen=True)
class Plan:
    """`rate_per_s` None: search for the highest that stays within `bounds`, from `first_rate_per_s` on."""

    bounds: Bounds
    seconds: float
    rate_per_s: float | None = None
    first_rate_per_s: float = 0.5
    seed: int = 1


@dataclass(frozen=True)
class Result:
    """`highest_per_s`: None if there was no search."""

    highest_per_s: float | None
    trials: list[Figures]


async def run_trials(surface: Surface, plan: Plan) -> Result:
    """Runs the plan after a warm-up, which opens connections. Raises ValueError for a trial of too many streams."""
    await run_load(surface, poisson(2.0, 1.0, seed=0))
    if plan.rate_per_s is not None:
        return Result(None, [await _trial(surface, plan.rate_per_s, plan)])
    highest, trials = await highest_rate(
        lambda rate: _trial(surface, rate, plan), plan.bounds, first_per_s=plan.first_rate_per_s
    )
    return Result(highest, trials)


async def _trial(surface: Surface, rate_per_s: float, plan: Plan) -> Figures:
    if rate_per_s * plan.seconds > MAX_STREAMS:
        raise ValueError(f"{rate_per_s:g} streams/s for {plan.seconds:g} s is more than {MAX_STREAMS} streams.")
    outcomes = await run_load(surface, poisson(rate_per_s, plan.seconds, plan.seed))
    figures = figures_of(outcomes, rate_per_s, plan.seconds, plan.bounds)
    print(f"  {rate_per_s:7.3g} streams/s: {'sustained' if figures.within(plan.bounds) else 'too much'}", flush=True)
    return figures


def ordered(trials: Sequence[Figures]) -> list[Figures]:
    return sorted(trials, key=lambda figures: figures.rate_per_s)


def row(f: Figures) -> tuple[object, ...]:
    """The values of HEADER."""
    errors = ", ".join(f"{count} {reason}" for reason, count in f.errors.items()) or "-"
    onset = (f.onset_p50_s, f.onset_p95_s, f.onset_p99_s)
    return (f.rate_per_s, f.streams, *onset, f.rtf_p50, f.underruns, f.goodput, f.late_p99_s, errors)


def verdict(result: Result, bounds: Bounds) -> str:
    """One sentence on a search; empty without one."""
    if result.highest_per_s is None:
        return ""
    return (
        f"highest rate with p95 onset within {bounds.onset_p95_s:g} s, no underrun and no error: "
        f"{result.highest_per_s:.3g} streams/s"
    )
