"""Things made once per voice and shared by its streams, within a budget of bytes; the least recently used go first.

Knows sizes and keys only. What a stream still holds is found again whether it is within the budget or not: two copies
of one voice would cost more than one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar
from weakref import WeakValueDictionary


class Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


V = TypeVar("V", bound=Sized)


class PromptCache(Generic[V]):
    """Keeps at most `max_bytes` alive on its own account. Used from one thread."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.made = 0
        self._kept: OrderedDict[str, V] = OrderedDict()
        self._alive: WeakValueDictionary[str, V] = WeakValueDictionary()

    @property
    def kept_bytes(self) -> int:
        """What is alive because of the shelf."""
        return sum(thing.nbytes for thing in self._kept.values())

    @property
    def alive_bytes(self) -> int:
        """What is alive, for the shelf's sake or a stream's."""
        return sum(thing.nbytes for thing in list(self._alive.values()))

    def get(self, key: str, make: Callable[[], V]) -> V:
        """The one of that key, made if there is none."""
        thing = self._alive.get(key)
        if thing is None:
            thing = make()
            self.made += 1
            self._alive[key] = thing
        self._kept[key] = thing
        self._kept.move_to_end(key)
        while self.kept_bytes > self.max_bytes:
            self._kept.popitem(last=False)
        return thing
