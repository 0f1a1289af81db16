"""What runs into one output have planned and spoken: the manifest, and the parts beside it of a run that goes on.

Workers put audio under its own name, whole, so a file may be there that the manifest does not list yet. A run first
removes the audio of its lines' older versions, then it writes its plan: their names and digests. Later it adds parts
with the records of what is complete, and at its end all become one manifest, the same that `mynah batch` keeps. So
after a crash at any moment the next run knows: a file whose line is listed or planned is complete and of that digest,
and any other file is not of a batch.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Sequence
from typing import Any

from mynah.batch.output_dir import JOURNAL, MANIFEST, file_exists, read_lines
from mynah.batch.script import Item
from mynah.batch.store import Store

_PART_LINES = 500  # in a part
Line = dict[str, Any]  # a record; without "bytes" it is only planned


class Journal:
    """The state of an output, by the names of its items. For one task."""

    def __init__(self, store: Store) -> None:
        """Reads what earlier runs left. Raises OSError."""
        self._store, self._run = store, secrets.token_hex(4)
        self._parts = sorted(store.sizes(JOURNAL))
        self._next_number = 1 + max((int(part.split("-")[0]) for part in self._parts), default=0)
        self._new: list[Line] = []
        self._sizes: dict[str, int] = {}
        self._lines: dict[str, Line] = {}
        try:
            manifest = store.read(MANIFEST)
        except FileNotFoundError:
            manifest = b""
        for data in (manifest, *(store.read(f"{JOURNAL}/{part}") for part in self._parts)):
            self._lines.update((line["name"], line) for line in read_lines(data))

    def missing(self, items: Iterable[Item], subtitle_format: str | None = None) -> list[Item]:
        """Returns the items that are new, changed or incomplete. Raises AlreadyExists for a file that no run wrote."""
        self._sizes = self._store.sizes()
        return [item for item in items if not self._has(item, subtitle_format)]

    def _has(self, item: Item, subtitle_format: str | None) -> bool:
        line, file = self._lines.get(item.name), _file(item)
        size = self._sizes.get(file)
        if line is None and size is not None:
            raise file_exists(file, item.name)
        if line is None or size is None or line["digest"] != item.digest or line.get("bytes", size) != size:
            return False
        if subtitle_format is not None and f"{item.name}.{subtitle_format}" not in self._sizes:
            return False
        if "bytes" not in line:  # the run ended before it listed what a worker had put there
            self.note({"name": item.name, "file": file, "digest": item.digest, "bytes": size})
        return True

    def plan(self, items: Sequence[Item]) -> None:
        """What is `missing` is of this run from now on. Call it before the first of them is written."""
        for item in items:
            if _file(item) in self._sizes:
                self._store.delete(_file(item))
        for item in items:
            self._note({"name": item.name, "digest": item.digest})
        self.flush()

    def note(self, record: Line) -> None:
        """An item is complete. The record is kept with the next part."""
        self._note(record)
        if len(self._new) >= _PART_LINES:
            self.flush()

    def _note(self, line: Line) -> None:
        self._new.append(line)
        self._lines[line["name"]] = line

    def flush(self) -> None:
        """Keep what was noted, in a new part."""
        if self._new:
            part = f"{self._next_number:08}-{self._run}.jsonl"
            self._store.write(f"{JOURNAL}/{part}", _as_lines(self._new))
            self._parts.append(part)
            self._next_number, self._new = self._next_number + 1, []

    def close(self) -> None:
        """The run has ended: its records become part of the manifest, and the parts go."""
        self.flush()
        if not self._parts:
            return
        self._store.write(MANIFEST, _as_lines(line for line in self._lines.values() if "bytes" in line))
        for part in self._parts:
            self._store.delete(f"{JOURNAL}/{part}")


def _file(item: Item) -> str:
    return f"{item.name}.wav"


def _as_lines(lines: Iterable[Line]) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in lines).encode()
