"""The output folder of a batch: audio files, and a manifest of the complete ones. It survives a crash at any moment.

A file is written under a temporary name, then its line is appended to the manifest, then the file gets its final name.
So a file with its final name is complete and listed. A listed file without it is complete under its temporary name.
"""

from __future__ import annotations

import json
import os
import wave
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mynah.batch.script import Item
from mynah.client.errors import AlreadyExists, WrongState

MANIFEST = "manifest.jsonl"
JOURNAL = ".journal"  # a folder of a run on Ray that has not ended; see journal.py
_LOCK = ".lock"


class OutputDir:
    """An output folder, as a context manager. Raises WrongState if another process uses it."""

    def __init__(self, folder: Path, subtitle_format: str | None = None) -> None:
        """`subtitle_format`: of the file beside each audio file; None: there is none."""
        self.folder = folder
        self._subtitle_format = subtitle_format
        self._records: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> OutputDir:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = locked(self.folder / _LOCK)
        if (self.folder / JOURNAL).exists():
            os.close(self._lock)
            message = f"{self.folder} has a run on Ray that was interrupted. End it with --ray, or take another folder."
            raise WrongState(message, reason="RUN_UNFINISHED")
        self._records = _read(self.folder / MANIFEST)
        self._manifest = (self.folder / MANIFEST).open("a", encoding="utf-8")
        if self._manifest.tell() and not (self.folder / MANIFEST).read_bytes().endswith(b"\n"):
            self._manifest.write("\n")  # ends a line that a crash cut off; it is skipped when the manifest is read
        return self

    def __exit__(self, *_: object) -> None:
        self._manifest.close()
        os.close(self._lock)

    def missing(self, items: Iterable[Item]) -> list[Item]:
        """Returns the items that are new or changed. Gives complete files their final names.

        Raises AlreadyExists if an item's file exists and is not in the manifest.
        """
        missing = [item for item in items if not self._has(item)]
        for part in self.folder.glob(".*.part"):  # never listed, so perhaps incomplete
            part.unlink()
        return missing

    def _has(self, item: Item) -> bool:
        record, path, part = self._records.get(item.name), self.path(item), self._part(item)
        if record is None and path.exists():
            raise file_exists(str(path), item.name)
        if record is None or record["digest"] != item.digest:
            return False
        if self._subtitle_format is not None and not self._subtitles(item).exists():
            return False
        if part.exists() and part.stat().st_size == record["bytes"]:
            os.replace(part, path)
        return path.exists() and path.stat().st_size == record["bytes"]

    def path(self, item: Item) -> Path:
        """The path of the item's complete audio."""
        return self.folder / f"{item.name}.wav"

    def _subtitles(self, item: Item) -> Path:
        return self.folder / f"{item.name}.{self._subtitle_format}"

    def put_subtitles(self, item: Item, text: str) -> None:
        """Store an item's subtitles; before its audio, so that what is listed has them."""
        part = self.folder / f".{item.name}.{self._subtitle_format}.part"
        part.write_text(text, encoding="utf-8")
        os.replace(part, self._subtitles(item))

    def _part(self, item: Item) -> Path:
        return self.folder / f".{item.name}.{item.digest}.part"

    def put(self, item: Item, pcm: bytes, rate_hz: int, info: dict[str, Any]) -> None:
        """Store an item's audio (PCM s16le) and its record durably."""
        path, part = self.path(item), self._part(item)
        try:
            with part.open("wb") as file:
                write_wav(file, pcm, rate_hz)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            part.unlink(missing_ok=True)  # on a full disk, the space that it took
            raise
        record = {"name": item.name, "file": path.name, "digest": item.digest, "bytes": part.stat().st_size, **info}
        self._manifest.write(json.dumps(record) + "\n")
        self._manifest.flush()
        os.fsync(self._manifest.fileno())
        self._records[item.name] = record
        os.replace(part, path)


def file_exists(file: str, name: str) -> AlreadyExists:
    """The error for audio of an item's name that no batch wrote."""
    message = f"{file} exists but is not in the manifest. Remove it, or give the line another name."
    return AlreadyExists(message, reason="FILE_EXISTS", field="name", value=name)


def write_wav(file: Any, pcm: bytes, rate_hz: int) -> None:
    """Write PCM s16le, mono, into a file that can seek."""
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate_hz)
        out.writeframes(pcm)


def _read(manifest: Path) -> dict[str, dict[str, Any]]:
    """Returns the newest record of each name."""
    lines = read_lines(manifest.read_bytes()) if manifest.exists() else []
    return {line["name"]: line for line in lines if "bytes" in line}


def read_lines(data: bytes) -> list[dict[str, Any]]:
    """Returns the lines of a manifest, or of a part of a journal. Skips those that were cut off."""
    lines = []
    for text in data.decode("utf-8", "replace").split("\n"):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and line.keys() >= {"name", "digest"}:
            lines.append(line)
    return lines


def locked(path: Path) -> int:
    """Returns the handle of a lock, to be closed. Raises WrongState if another process holds it."""
    import fcntl

    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        message = f"Another process is writing to {path.parent}. Wait for it, or choose another folder."
        raise WrongState(message, reason="FOLDER_IN_USE") from None
    return handle
