"""A folder of spoken files and the manifest that says which are whole. Survives being cut off at any moment.

A file is written beside its place; then its line goes into the manifest; then it is moved to its place. So a file in
its place is whole and listed, and one that is listed and missing lies beside its place, whole. Knows no server.
"""

from __future__ import annotations

import json
import os
import wave
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mynah.cli.batch.script import Item
from mynah.client.errors import AlreadyExists, WrongState

MANIFEST = "manifest.jsonl"
_LOCK = ".lock"


class Shelf:
    """Used by one process at a time, as a context manager. Raises WrongState when another has the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._records: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Shelf:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.folder / _LOCK)
        self._records = _read(self.folder / MANIFEST)
        self._manifest = (self.folder / MANIFEST).open("a", encoding="utf-8")
        if self._manifest.tell() and not (self.folder / MANIFEST).read_bytes().endswith(b"\n"):
            self._manifest.write("\n")  # the line that was cut off stays one line, and is no record
        return self

    def __exit__(self, *_: object) -> None:
        self._manifest.close()
        os.close(self._lock)

    def missing(self, items: Iterable[Item]) -> list[Item]:
        """Those not yet spoken as they stand. What was spoken and not moved to its place is moved now.

        Raises AlreadyExists for a file in an item's place that is not of ours.
        """
        missing = [item for item in items if not self._has(item)]
        for part in self.folder.glob(".*.part"):  # written and never listed
            part.unlink()
        return missing

    def _has(self, item: Item) -> bool:
        record, path, part = self._records.get(item.name), self.path(item), self._part(item)
        if record is None and path.exists():
            message = f"{path} is there and not in the manifest; remove it, or give the line another name"
            raise AlreadyExists(message, reason="FILE_EXISTS", field="name", value=item.name)
        if record is None or record["digest"] != item.digest:
            return False
        if part.exists() and part.stat().st_size == record["bytes"]:
            os.replace(part, path)
        return path.exists() and path.stat().st_size == record["bytes"]

    def path(self, item: Item) -> Path:
        """Where the item's audio is, once it is whole."""
        return self.folder / f"{item.name}.wav"

    def _part(self, item: Item) -> Path:
        return self.folder / f".{item.name}.{item.digest}.part"

    def put(self, item: Item, pcm: bytes, rate_hz: int, about: dict[str, Any]) -> None:
        """Keep an item's audio (PCM s16le) and its record, for good: all of it is on the disk when this returns."""
        path, part = self.path(item), self._part(item)
        with part.open("wb") as file:
            _write_wav(file, pcm, rate_hz)
            file.flush()
            os.fsync(file.fileno())
        record = {"name": item.name, "file": path.name, "digest": item.digest, "bytes": part.stat().st_size, **about}
        self._manifest.write(json.dumps(record) + "\n")
        self._manifest.flush()
        os.fsync(self._manifest.fileno())
        self._records[item.name] = record
        os.replace(part, path)


def _write_wav(file: Any, pcm: bytes, rate_hz: int) -> None:
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate_hz)
        out.writeframes(pcm)


def _read(manifest: Path) -> dict[str, dict[str, Any]]:
    """The newest record of each name. A line that was cut off is no record."""
    records: dict[str, dict[str, Any]] = {}
    if manifest.exists():
        for line in manifest.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and record.keys() >= {"name", "digest", "bytes"}:
                records[record["name"]] = record
    return records


def _locked(path: Path) -> int:
    import fcntl

    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        message = f"another process speaks into {path.parent}; wait for it, or choose another folder"
        raise WrongState(message, reason="FOLDER_IN_USE") from None
    return handle
