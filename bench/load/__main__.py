"""`python -m bench.load`: loads a server at one rate, or searches for the highest that it sustains.

By default the server is one of its own. Writes JSON and a PNG.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import asdict
from pathlib import Path

from bench.demo import HTTP_ADDRESS, server
from bench.report import BUILD, publish, table
from service.load.figures import Bounds, Figures
from service.load.surfaces import SURFACES
from service.load.trials import HEADER, Plan, Result, ordered, row, run_trials, verdict


async def load(arguments: argparse.Namespace, plan: Plan) -> Result:
    """Runs the trials, on a server of our own if none is named."""
    async with AsyncExitStack() as held:
        address = arguments.server or await held.enter_async_context(_server(arguments))
        return await run_trials(await held.enter_async_context(SURFACES[arguments.surface](address)), plan)


def _server(arguments: argparse.Namespace) -> AbstractAsyncContextManager[str]:
    """A server of our own that serves the surface."""
    if arguments.surface in ("http", "websocket"):
        return server(arguments.model, "--http-listen", "127.0.0.1:0", pattern=HTTP_ADDRESS)
    return server(arguments.model)


def report(name: str, bounds: Bounds, result: Result) -> None:
    trials = ordered(result.trials)
    text = table(HEADER, [row(figures) for figures in trials])
    if said := verdict(result, bounds):
        text += f"\n\n{said}"
    plot(BUILD / f"{name}.png", bounds.onset_p95_s, trials)
    figures = {"bound_s": bounds.onset_p95_s, "highest_rate_per_s": result.highest_per_s}
    publish(name, text, {**figures, "trials": [asdict(f) for f in trials]})


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
    parser.add_argument(
        "--server",
        metavar="HOST:PORT",
        help="a server; default: start one",
    )
    parser.add_argument("--model", default="random:tiny", help="model of the started server (default %(default)s)")
    parser.add_argument("--surface", choices=sorted(SURFACES), default="grpc")
    parser.add_argument("--rate", type=float, help="streams/s; default: search for the highest sustained rate")
    parser.add_argument("--first-rate", type=float, default=0.5, help="of the search, streams/s (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of arrivals in each trial (default %(default)s)")
    parser.add_argument("--bound", type=float, default=1.0, help="limit of the p95 onset, s (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if not 0 < arguments.seconds <= 600:
        parser.error("--seconds must be above 0 and at most 600")
    bounds = Bounds(arguments.bound)
    plan = Plan(bounds, arguments.seconds, arguments.rate, arguments.first_rate, arguments.seed)
    try:
        result = asyncio.run(load(arguments, plan))
    except ValueError as error:
        parser.error(str(error))
    report(f"load-{arguments.surface}", bounds, result)


if __name__ == "__main__":
    main()
