"""`python -m bench.load`: loads a server on this machine at one rate, or searches for the highest that it sustains.

Writes JSON and a PNG.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import asdict
from pathlib import Path

from bench.demo import HTTP_ADDRESS, server
from bench.load.arrivals import poisson
from bench.load.figures import Bounds, Figures, figures_of
from bench.load.run import run_load
from bench.load.search import highest_rate
from bench.load.surfaces import SURFACES, Surface
from bench.report import BUILD, publish, table

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_MAX_STREAMS = 5_000  # in one trial


async def measure(surface: Surface, rate_per_s: float, arguments: argparse.Namespace) -> Figures:
    """Runs one trial."""
    if rate_per_s * arguments.seconds > _MAX_STREAMS:
        raise SystemExit(f"{rate_per_s:g} streams/s for {arguments.seconds:g} s is more than {_MAX_STREAMS} streams")
    arrivals = poisson(rate_per_s, arguments.seconds, arguments.seed)
    outcomes = await run_load(surface, arrivals)
    figures = figures_of(outcomes, rate_per_s, arguments.seconds, Bounds(arguments.bound))
    print(f"  {rate_per_s:7.3g} streams/s: {'sustained' if figures.within(Bounds(arguments.bound)) else 'too much'}")
    return figures


async def load(arguments: argparse.Namespace) -> tuple[float | None, list[Figures]]:
    """Runs the trials; returns them, and the highest sustained rate if no rate was given."""
    async with AsyncExitStack() as held:
        address = arguments.server or await held.enter_async_context(_server(arguments))
        surface = await held.enter_async_context(SURFACES[arguments.surface](address))
        await run_load(surface, poisson(2.0, 1.0, seed=0))  # a warm-up: opens connections
        if arguments.rate is not None:
            return None, [await measure(surface, arguments.rate, arguments)]
        return await highest_rate(
            lambda rate: measure(surface, rate, arguments), Bounds(arguments.bound), first_per_s=arguments.first_rate
        )


def _server(arguments: argparse.Namespace) -> AbstractAsyncContextManager[str]:
    """A server of our own that serves the surface."""
    if arguments.surface in ("http", "websocket"):
        return server(arguments.model, "--http-listen", "127.0.0.1:0", pattern=HTTP_ADDRESS)
    return server(arguments.model)


def report(name: str, bound_s: float, highest: float | None, trials: Sequence[Figures]) -> None:
    ordered = sorted(trials, key=lambda figures: figures.rate_per_s)
    header = ["streams/s", "n", "onset p50 s", "p95", "p99", "RTF", "underruns", "goodput", "late p99 s", "errors"]
    rows = [_row(figures) for figures in ordered]
    text = table(header, rows)
    if highest is not None:
        text += (
            f"\n\nhighest rate with p95 onset within {bound_s:g} s, no underrun and no error: {highest:.3g} streams/s"
        )
    plot(BUILD / f"{name}.png", bound_s, ordered)
    publish(name, text, {"bound_s": bound_s, "highest_rate_per_s": highest, "trials": [asdict(f) for f in ordered]})


def _row(f: Figures) -> tuple[object, ...]:
    errors = ", ".join(f"{count} {reason}" for reason, count in f.errors.items()) or "-"
    onset = (f.onset_p50_s, f.onset_p95_s, f.onset_p99_s)
    return (f.rate_per_s, f.streams, *onset, f.rtf_p50, f.underruns, f.goodput, f.late_p99_s, errors)


def plot(path: Path, bound_s: float, trials: Sequence[Figures]) -> None:
    """Plots onset percentiles and underruns over the rate."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (onset, dry) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    rates = [f.rate_per_s for f in trials]
    for percent in (50, 95, 99):
        onset.plot(rates, [getattr(f, f"onset_p{percent}_s") for f in trials], marker="o", label=f"p{percent}")
    onset.axhline(bound_s, color="gray", linestyle=":", label="bound on p95")
    onset.set(xlabel="streams/s", ylabel="time to audible onset (s)", ylim=(0, None))
    onset.legend()
    dry.plot(rates, [f.underrun_s for f in trials], marker="o", label="silence by underruns (s)")
    dry.plot(rates, [sum(f.errors.values()) for f in trials], marker="x", label="errors")
    dry.set(xlabel="streams/s", ylim=(0, None))
    dry.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.load", description=__doc__, allow_abbrev=False)
    parser.add_argument("--server", metavar="HOST:PORT", help="a server on this machine; default: start one")
    parser.add_argument("--model", default="random:tiny", help="model of the started server (default %(default)s)")
    parser.add_argument("--surface", choices=sorted(SURFACES), default="grpc")
    parser.add_argument("--rate", type=float, help="streams/s; default: search for the highest sustained rate")
    parser.add_argument("--first-rate", type=float, default=0.5, help="of the search, streams/s (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of arrivals in each trial (default %(default)s)")
    parser.add_argument("--bound", type=float, default=1.0, help="limit of the p95 onset, s (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.server and arguments.server.rpartition(":")[0] not in _LOOPBACK:
        parser.error(
            f"--server {arguments.server} is not on this machine; its host must be one of {', '.join(_LOOPBACK)}"
        )
    if not 0 < arguments.seconds <= 600:
        parser.error("--seconds must be above 0 and at most 600")
    highest, trials = asyncio.run(load(arguments))
    report(f"load-{arguments.surface}", arguments.bound, highest, trials)


if __name__ == "__main__":
    main()
