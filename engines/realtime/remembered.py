"""Measured times that are kept in the cache folder, by machine and model, so that only the first start measures."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from engines.realtime.ladder import Setting, Trial
from engines.version import VERSION

_log = logging.getLogger(__name__)

_MEASURED = "a sentence's windows"  # by measure.py; times of something else are not kept


def fingerprint(weights: Sequence[Path], settings: Sequence[Setting], threads: int, simd_width: int, amx: bool) -> str:
    """A name for this machine, these weights and what is measured: times of one are not those of another."""
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in weights]
    measured = [dataclasses.astuple(setting) for setting in settings]
    facts = [VERSION, _MEASURED, _processor(), os.cpu_count(), threads, simd_width, amx, files, measured]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]


def path_of(cache_dir: Path, name: str) -> Path:
    """The file of a fingerprint's times."""
    return cache_dir / "realtime" / f"{name}.json"


def recall(path: Path) -> tuple[Trial, ...] | None:
    """Returns the trials in a file that `remember` wrote; None if there is none that can be read."""
    try:
        entries = json.loads(path.read_text())
        return tuple(Trial(Setting(*each["setting"]), each["t3_s"], each["s3gen_s"]) for each in entries) or None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        _log.warning("%s cannot be read (%s), so the machine is measured again", path, error)
        return None


def remember(path: Path, trials: Sequence[Trial]) -> None:
    """Write the trials. A folder that cannot be written costs only time: the next start measures again."""
    entries = [
        {"setting": dataclasses.astuple(trial.setting), "t3_s": trial.t3_s, "s3gen_s": trial.s3gen_s}
        for trial in trials
    ]
    new = path.with_name(f"{path.name}.{uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(json.dumps(entries))
        new.replace(path)
    except OSError as error:
        _log.info("the measured times cannot be kept in %s (%s)", path.parent, error)
        with suppress(OSError):
            new.unlink()


def _processor() -> str:
    """The CPU's name."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model", "CPU part")):
                return f"{platform.machine()} {line.partition(':')[2].strip()}"
    return f"{platform.machine()} {platform.processor()}"
