"""Where exported graphs lie: one folder per (weights, exporter, settings), made once and never half.

Knows files and hashes; knows no graph format and no model.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from engines.errors import EngineError

MANIFEST = "manifest.json"
_KEY_DIGITS = 16


class ExportError(EngineError):
    """A graph cannot be exported, or what lies in the cache is not what its manifest says."""

    reason: str = "EXPORT_FAILED"


def sha256(path: Path, memo_dir: Path | None = None) -> str:
    """Hex digest of a file's content.

    With `memo_dir` it is remembered there by path, size and time of change: a gigabyte of weights takes seconds. In a
    folder that cannot be written to it is not remembered.
    """
    if memo_dir is None:
        return _digest(path)
    stat = path.stat()
    identity = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    memo = memo_dir / "digests" / hashlib.sha256(identity.encode()).hexdigest()[:_KEY_DIGITS]
    if memo.is_file():
        return memo.read_text()
    digest = _digest(path)
    with contextlib.suppress(OSError):
        memo.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(memo, digest)
    return digest


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cached_folder(root: Path, name: str, identity: Mapping[str, object], make: Callable[[Path], None]) -> Path:
    """The folder below `root` for `name` with exactly this identity, made by `make` when it is not there.

    `make` fills a temporary folder, which then takes its place in one rename: a process that dies leaves nothing
    that looks finished, and of two that make the same folder at once one wins and both can use it.
    """
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:_KEY_DIGITS]
    folder = root / f"{name}-{key}"
    if (folder / MANIFEST).is_file():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root))
    try:
        make(partial)
        _publish(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _publish(partial: Path, folder: Path) -> None:
    if not (partial / MANIFEST).is_file():
        raise ExportError(f"an export to {folder} ended without its {MANIFEST}")
    try:
        partial.rename(folder)
    except OSError:
        if not (folder / MANIFEST).is_file():  # else another process was first
            raise


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)
