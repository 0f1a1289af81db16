"""The output of the benchmarks: a table, a line of JSON, and the same JSON in build/bench."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

BUILD = Path("build/bench")


def median_s(call: Callable[[], object], *, repeats: int = 5, warm_up: int = 1) -> float:
    """Returns the median wall time of a call in seconds, after `warm_up` calls that are not timed."""
    for _ in range(warm_up):
        call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Returns a plain text table, with right-aligned columns after the first."""
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


def publish(name: str, text: str, result: Mapping[str, object]) -> None:
    """Print the table and the JSON line, and write the JSON to build/bench/NAME.json."""
    BUILD.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"bench": name, **result})
    (BUILD / f"{name}.json").write_text(line + "\n")
    print(text)
    print(line)


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
