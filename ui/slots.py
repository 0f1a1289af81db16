"""How many things visitors may have open at once: for each visitor and in all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from mynah import ServerBusy


class Slots:
    """Counts what is open. A visitor is the address of a browser."""

    def __init__(self, per_visitor: int, in_all: int, reason: str) -> None:
        self._per_visitor, self._in_all, self._reason = per_visitor, in_all, reason
        self._open: Counter[str] = Counter()

    @contextmanager
    def hold(self, visitor: str) -> Iterator[None]:
        """Hold one slot. Raises ServerBusy with the reason if none is free."""
        if self._open[visitor] >= self._per_visitor or self._open.total() >= self._in_all:
            raise ServerBusy("Too much is open at once. Try again in a moment.", reason=self._reason)
        self._open[visitor] += 1
        try:
            yield
        finally:
            self._open[visitor] -= 1
            if not self._open[visitor]:
                del self._open[visitor]
