"""`mynah-load`: loads servers that you name at one rate, or searches for the highest that they sustain."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path

from mynah import Tls
from service.load.access import Access
from service.load.figures import Bounds
from service.load.surfaces import SURFACES, Spread, Surface
from service.load.trials import HEADER, Plan, Result, ordered, row, run_trials, verdict

_MAX_SECONDS = 600.0


def main() -> None:
    """Exits with 0 if the rate, or any rate of the search, stayed within bounds, with 1 if none did, with 2 for a wrong
    argument or file."""
    parser = _parser()
    arguments = parser.parse_args()
    if not 0 < arguments.seconds <= _MAX_SECONDS:
        parser.error(f"--seconds must be above 0 and at most {_MAX_SECONDS:g}")
    for name in ("rate", "first_rate", "bound"):
        if (value := getattr(arguments, name)) is not None and not 0 < value < float("inf"):
            parser.error(f"--{name.replace('_', '-')} must be above 0")
    if (arguments.cert is None) != (arguments.cert_key is None):
        parser.error("--cert and --cert-key need each other")
    bounds = Bounds(arguments.bound)
    plan = Plan(bounds, arguments.seconds, arguments.rate, arguments.first_rate, arguments.seed)
    try:
        result = asyncio.run(_load(arguments, plan))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    _report(result, bounds, arguments.json)
    sys.exit(0 if any(figures.within(bounds) for figures in result.trials) else 1)


async def _load(arguments: argparse.Namespace, plan: Plan) -> Result:
    access = _access(arguments)
    async with AsyncExitStack() as held:
        kind = SURFACES[arguments.surface]
        surfaces: list[Surface] = [
            await held.enter_async_context(kind(address, access)) for address in arguments.server
        ]
        return await run_trials(Spread(surfaces), plan)


def _access(arguments: argparse.Namespace) -> Access:
    """Raises OSError if a file cannot be read."""
    file: Path | None = arguments.api_key_file
    key = file.read_text().strip() if file else os.environ.get("MYNAH_API_KEY")
    details = arguments.ca or arguments.cert or arguments.server_name
    tls = Tls(arguments.ca, arguments.server_name, certificate=arguments.cert, key=arguments.cert_key)
    return Access(key or None, tls if details or arguments.tls else None)


def _report(result: Result, bounds: Bounds, file: Path | None) -> None:
    rows = [
        tuple(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row(each))
        for each in ordered(result.trials)
    ]
    widths = [max(map(len, column)) for column in zip(HEADER, *rows, strict=True)]
    for cells in (HEADER, *rows):
        print("  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))
    if said := verdict(result, bounds):
        print(said)
    if file is not None:
        trials = [asdict(figures) for figures in ordered(result.trials)]
        file.write_text(json.dumps({"highest_rate_per_s": result.highest_per_s, "trials": trials}) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mynah-load", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--server", required=True, action="append", metavar="HOST:PORT", help="a server; several take turns")
    add("--surface", choices=sorted(SURFACES), default="grpc", help="the protocol (default %(default)s)")
    add("--rate", type=float, help="streams/s; default: search for the highest sustained rate")
    add("--first-rate", type=float, default=0.5, help="of the search, streams/s (default %(default)s)")
    add("--seconds", type=float, default=20.0, help="of arrivals in each trial (default %(default)s)")
    add("--bound", type=float, default=1.0, help="limit of the p95 onset, s (default %(default)s)")
    add("--seed", type=int, default=1, help="of arrivals and texts (default %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the figures of all trials to this file")
    add("--tls", action="store_true", help="use TLS and trust the system's certificates")
    add("--ca", type=Path, metavar="FILE", help="use TLS and trust the certificates in this PEM file")
    add("--server-name", metavar="HOST", help="use TLS; the name in the certificate, if it is not the address's")
    add("--cert", type=Path, metavar="FILE", help="this client's certificate (PEM) for mutual TLS")
    add("--cert-key", type=Path, metavar="FILE", help="the private key (PEM) of --cert")
    add("--api-key-file", type=Path, metavar="FILE", help="file with the API key (default: $MYNAH_API_KEY)")
    return parser


if __name__ == "__main__":
    main()
