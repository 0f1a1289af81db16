"""A cache of exported graphs: one folder per (weights, exporter, settings), created atomically."""

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
    """A graph cannot be exported, or an export does not match its manifest."""

    reason: str = "EXPORT_FAILED"


def sha256(path: Path, memo_dir: Path | None = None) -> str:
    """Returns the hex digest of a file's content.

    `memo_dir` caches it by path, size and modification time, since a gigabyte of weights takes seconds. If the folder
    is not writable, nothing is cached.
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
    """Returns the folder below `root` for `name` and `identity`; `make` fills it if it does not exist.

    `make` fills a temporary folder, which is then renamed: a process that dies leaves no incomplete folder, and two
    processes that create the same folder can both use it.
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
        raise ExportError(f"The export to {folder} did not write its {MANIFEST}.")
    try:
        partial.rename(folder)
    except OSError:
        if not (folder / MANIFEST).is_file():  # otherwise another process created it first
            raise


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)
