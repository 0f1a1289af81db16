"""The results of a check: one JSON line each, written at once, and the table of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PASSED, FAILED, MEASURED, ABSENT = "passed", "FAILED", "measured", "absent"
FILE = "gpu.jsonl"


@dataclass(frozen=True)
class Result:
    """One line. `value` has the unit that `unit` names; `planned` is what arithmetic says it should be."""

    step: str
    name: str
    status: str
    value: float | None = None
    unit: str = ""
    planned: float | None = None
    note: str = ""
    detail: dict[str, Any] = field(default_factory=dict)


class Recorder:
    """Writes the results of one step."""

    def __init__(self, folder: Path, step: str) -> None:
        self._path, self._step = folder / FILE, step

    def _add(self, result: Result) -> None:
        line = json.dumps(asdict(result)).encode() + b"\n"
        with self._path.open("ab+") as file:
            if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                line = b"\n" + line  # behind one that was cut off
            file.write(line)

    def measured(
        self, name: str, value: float, unit: str, *, planned: float | None = None, note: str = "", **detail: Any
    ) -> None:
        """A figure."""
        self._add(Result(self._step, name, MEASURED, value, unit, planned, note, detail))

    def absent(self, name: str, why: str) -> None:
        """Something that this machine does not have."""
        self._add(Result(self._step, name, ABSENT, note=why))

    def check(self, name: str, passed: bool, note: str = "", **detail: Any) -> None:
        """A check."""
        self._add(Result(self._step, name, PASSED if passed else FAILED, note=note, detail=detail))

    def attempt(self, name: str, work: Callable[[], str | None]) -> None:
        """A check that passes if `work` returns, with a note, and fails if it raises. Others go on."""
        try:
            note = work() or ""
        except Exception as error:
            self.check(name, False, f"{type(error).__name__}: {error}"[:400])
            return
        self.check(name, True, note)


def read(folder: Path) -> Iterator[Result]:
    """The results so far; a line that was cut off is left out."""
    path = folder / FILE
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            yield Result(**json.loads(line))
        except (ValueError, TypeError):
            continue


def table(results: list[Result]) -> str:
    """All results, one line each."""
    lines = []
    for result in results:
        value = "" if result.value is None else f"{result.value:.4g} {result.unit}"
        planned = "" if result.planned is None else f"planned {result.planned:.4g}"
        lines.append(f"{result.step:10} {result.name:44} {result.status:9} {value:>18} {planned:>16}  {result.note}")
    return "\n".join(line.rstrip() for line in lines)
