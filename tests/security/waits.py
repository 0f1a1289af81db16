"""How long a thread was ready to run and had no processor."""

from __future__ import annotations

from pathlib import Path


class Wait:
    """The time that a thread of a process, its main thread by default, has waited for a processor."""

    def __init__(self, pid: int, thread: int | None = None) -> None:
        self._file = Path(f"/proc/{pid}/task/{thread or pid}/schedstat")
        self._before_s = self._read()

    def _read(self) -> float:
        return int(self._file.read_text().split()[1]) / 1e9

    def since_last_s(self) -> float:
        """The time since the last call."""
        before_s, self._before_s = self._before_s, self._read()
        return self._before_s - before_s
