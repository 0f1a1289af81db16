"""How every benchmark reports: a table for people, one line of JSON for programs, the same JSON in build/bench.

A run of a documented command is also recorded in docs/measured.json.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.measured import MEASURED, is_documented, record

BUILD = Path("build/bench")


def median_s(call: Callable[[], object], *, repeats: int = 5, warm_up: int = 1) -> float:
    """Median wall time of a call in seconds, after `warm_up` unmeasured calls."""
    for _ in range(warm_up):
        call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A plain text table; numbers to the right."""
    cells = [list(header)] + [[_text(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(lines)


def publish(
    name: str,
    text: str,
    result: Mapping[str, object],
    *,
    arguments: Sequence[str] | None = None,
    build: Path = BUILD,
    measured: Path = MEASURED,
) -> None:
    """Print the table and a JSON line; write the JSON to build/bench/NAME.json, and record a documented run.

    `arguments` are the bench's own, by default those of the command line.
    """
    build.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"bench": name, **result})
    (build / f"{name}.json").write_text(line + "\n")
    print(text)
    if is_documented(name, sys.argv[1:] if arguments is None else arguments):
        record(name, result, path=measured)
        print(f"recorded in {measured.name}; python -m tools.measured brings the documents' tables up to date")
    print(line)


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
