"""Files that are read again when they change, with the last good content kept. Knows nothing of what is in them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")
log = logging.getLogger("mynah.service")

Signature = tuple[tuple[int, int, int] | None, ...]


class WatchedFiles(Generic[T]):
    """What `read` makes of the files. Looking costs a stat per file, so no task and no timer is needed.

    A file that is broken, or gone for a moment, changes nothing: the error is logged once, the content before it
    stays. Not thread-safe beyond that two threads may both read a change.
    """

    def __init__(self, paths: tuple[Path, ...], read: Callable[[], T], what: str) -> None:
        """Raises what `read` raises."""
        self._paths, self._read, self._what = paths, read, what
        self._seen = self._signature()
        self._content = read()

    def content(self) -> T:
        """The newest good content; the same object as before while nothing has changed."""
        now = self._signature()
        if now != self._seen:
            self._seen = now
            try:
                self._content = self._read()
                log.info("%s: read again", self._what)
            except Exception as error:
                log.error("%s: not taken over, the former ones stay: %s", self._what, error)
        return self._content

    def _signature(self) -> Signature:
        return tuple(_signature(path) for path in self._paths)


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
