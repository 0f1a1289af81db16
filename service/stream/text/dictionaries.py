"""The server's pronunciation dictionaries: files in a folder, read again when they change.

`*.dict` holds for every voice, `VOICE_ID/*.dict` for one voice and before the others. A file has one
`word = respelling` in each line.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from engines.errors import InvalidInput
from engines.text.dictionary import EMPTY, Dictionary, Entry, check_count, parse

log = logging.getLogger("mynah.service")

MAX_ENTRIES = 10_000  # of all files of a folder
_MAX_FILE_BYTES = 2_000_000

_Signature = tuple[tuple[str, int, int], ...]


class DictionaryFolder:
    """The dictionaries of a folder. If a file becomes invalid, that is logged once and the former content stays."""

    def __init__(self, folder: Path) -> None:
        """Raises InvalidInput, which names the file and its line, or OSError."""
        self._folder = folder
        self._seen = self._signature()
        self._all, self._of_voices = self._read()

    def for_voice(self, voice_id: str) -> Dictionary:
        """Returns the newest valid dictionary for a voice. Costs a listing of the folder."""
        self._reload()
        return self._of_voices.get(voice_id, self._all)

    def _reload(self) -> None:
        try:
            now = self._signature()
            if now == self._seen:
                return
            self._seen = now
            self._all, self._of_voices = self._read()
            log.info("dictionaries: reloaded")
        except (InvalidInput, OSError) as error:
            log.error("dictionaries: cannot be reloaded, the former content stays in use: %s", error)

    def _files(self) -> list[Path]:
        if not self._folder.is_dir():
            raise NotADirectoryError(f"{self._folder} is not a folder of dictionaries.")
        of_voices = [path for path in self._folder.glob("*/*.dict") if not path.parent.name.startswith(".")]
        return sorted([*self._folder.glob("*.dict"), *of_voices])  # without the hidden folders of a ConfigMap

    def _signature(self) -> _Signature:
        stats = [(str(path), path.stat()) for path in self._files()]
        return tuple((path, stat.st_mtime_ns, stat.st_size) for path, stat in stats)

    def _read(self) -> tuple[Dictionary, dict[str, Dictionary]]:
        files = {path: _entries(path) for path in self._files()}
        check_count(sum(map(len, files.values())), MAX_ENTRIES)
        common = Dictionary(_joined(files[path] for path in files if path.parent == self._folder))
        voices = {path.parent.name for path in files if path.parent != self._folder}
        return common, {
            voice: Dictionary(_joined(files[path] for path in files if path.parent.name == voice), behind=common)
            for voice in voices
        }


def _entries(path: Path) -> tuple[Entry, ...]:
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise OSError(f"{path} has more than {_MAX_FILE_BYTES} bytes.")
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise OSError(f"{path} is not UTF-8: {error}.") from error


def _joined(parts: Iterable[tuple[Entry, ...]]) -> list[Entry]:
    return [entry for part in parts for entry in part]


def with_request(entries: tuple[Entry, ...], server: Dictionary = EMPTY) -> Dictionary:
    """Returns the dictionary of a request before the server's. Raises InvalidInput."""
    check_count(len(entries))
    return Dictionary(entries, behind=server or None) if entries else server
