"""docs/measured.json: what each documented bench found last, with command, commit, date and machine.

The tables of the documents are made from it by `python -m tools.measured`.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MEASURED = Path(__file__).parents[1] / "docs/measured.json"
COMMANDS = {
    "engine": "make bench-engine",
    "http": "make bench-http",
    "intelligibility": "make bench-intelligibility",
    "length": "make bench-length",
    "plan": "make bench-plan",
    "s3gen": "make bench-s3gen",
    "service": "make bench-service",
    "speech": "make bench-speech",
    "stream": "make bench-stream",
    "t3": "make bench-t3",
    "t3_weights": "make bench-t3-weights",
}
# What those commands pass to their bench. A run with other arguments measures something else.
_ARGUMENTS = {"speech": ["--model", "tiny"]}


@dataclass(frozen=True)
class Record:
    """One bench's last documented run; `figures` is the bench's own JSON."""

    command: str
    commit: str
    date: str
    machine: str
    figures: Mapping[str, Any]


def is_documented(name: str, arguments: Sequence[str]) -> bool:
    """Whether a run of the bench with these arguments is the one that the documents quote."""
    return name in COMMANDS and list(arguments) == _ARGUMENTS.get(name, [])


def record(name: str, figures: Mapping[str, Any], *, path: Path = MEASURED) -> Record:
    """Replace the record of this bench and leave the others as they are."""
    made = Record(COMMANDS[name], _commit(), datetime.date.today().isoformat(), machine(), figures)
    records = json.loads(path.read_text()) if path.exists() else {}
    records[name] = asdict(made)
    path.write_text(json.dumps(records, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    return made


def load(path: Path = MEASURED) -> dict[str, Record]:
    """All records by the bench's name."""
    return {name: Record(**fields) for name, fields in json.loads(path.read_text()).items()}


def machine() -> str:
    """The CPU's name and the number of cores that this process may use."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores"


def _commit() -> str:
    """The commit that was measured; "+" behind it says that tracked files had changed."""
    root = MEASURED.parents[1]

    def git(*arguments: str) -> str:
        done = subprocess.run(("git", *arguments), cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if changed else "")
