"""Places for calls that may stay open without costing their client anything, with fair limits over connections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.errors import ResourceExhausted

_RETRY_AFTER_S = 1.0


class Places:
    """At most `limit` calls at once. At the limit the oldest of the connection with the most ends for a new one."""

    def __init__(self, what: str, reason: str, advice: str, limit: int, limit_of_connection: int) -> None:
        """`what` names the calls in the plural, `advice` says what their client can do instead."""
        self.limit = limit
        self._what, self._reason, self._advice = what, reason, advice
        self._limit_of_connection = limit_of_connection
        self._held: dict[str, dict[object, Callable[[], None]]] = {}  # by connection, the oldest first
        self._counts: Counter[str] = Counter()
        self.in_use = 0

    @contextmanager
    def hold(self, connection: str, end: Callable[[], None]) -> Iterator[None]:
        """Holds a place inside the block; `end` is called when another call takes it. Raises ResourceExhausted."""
        if self._counts[connection] >= self._limit_of_connection:
            raise self.exhausted(f"{self._limit_of_connection} {self._what} on a connection")
        if self.in_use >= self.limit:
            self._end_one()
        place = object()
        self._held.setdefault(connection, {})[place] = end
        self._counts[connection] += 1
        self.in_use += 1
        try:
            yield
        finally:
            self._remove(connection, place)

    def exhausted(self, allowed: str = "") -> ResourceExhausted:
        """The error of a call that has no place, or has lost it."""
        allowed = allowed or f"{self.limit} {self._what}"
        message = f"The server may have {allowed}, its limit; {self._advice}."
        return ResourceExhausted(self._reason, message, allowed=allowed, retry_after_s=_RETRY_AFTER_S)

    def _end_one(self) -> None:
        most = max(self._counts, key=self._counts.__getitem__)
        place, end = next(iter(self._held[most].items()))
        self._remove(most, place)
        end()

    def _remove(self, connection: str, place: object) -> None:
        held = self._held.get(connection, {})
        if held.pop(place, None) is None:
            return  # its place was given away
        self.in_use -= 1
        self._counts[connection] -= 1
        if not held:
            del self._held[connection], self._counts[connection]
