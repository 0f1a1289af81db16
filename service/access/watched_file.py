"""Files that are reloaded when they change; the last valid content is kept."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")
log = logging.getLogger("mynah.service")

Signature = tuple[tuple[int, int, int] | None, ...]


class WatchedFiles(Generic[T]):
    """The content that `read` returns for the files. A check costs one stat per file, so no task or timer is needed.

    If a file is invalid or missing, the error is logged once and the former content stays. May be called from
    several threads; at worst two of them reload the same change.
    """

    def __init__(self, paths: tuple[Path, ...], read: Callable[[], T], what: str) -> None:
        """Raises what `read` raises."""
        self._paths, self._read, self._what = paths, read, what
        self._seen = self._signature()
        self._content = read()

    def content(self) -> T:
        """Returns the newest valid content: the same object until a file changes."""
        now = self._signature()
        if now != self._seen:
            self._seen = now
            try:
                self._content = self._read()
                log.info("%s: reloaded", self._what)
            except Exception as error:
                log.error("%s: cannot be reloaded, the former content stays in use: %s", self._what, error)
        return self._content

    def _signature(self) -> Signature:
        return tuple(_signature(path) for path in self._paths)


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
