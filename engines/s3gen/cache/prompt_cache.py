"""A LRU cache of what is computed once per voice and shared by its streams, within a budget of bytes."""

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
    """Keeps at most `max_bytes` of values alive, the most recently used ones. Used from one thread.

    A value that a stream still holds is found whether or not it is within the budget: a second copy of the same
    voice would cost more.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.made = 0
        self._kept: OrderedDict[str, V] = OrderedDict()
        self._alive: WeakValueDictionary[str, V] = WeakValueDictionary()

    @property
    def kept_bytes(self) -> int:
        """Bytes of the values that the cache keeps alive."""
        return sum(value.nbytes for value in self._kept.values())

    @property
    def alive_bytes(self) -> int:
        """Bytes of all values that are alive, kept by the cache or held by streams."""
        return sum(value.nbytes for value in list(self._alive.values()))

    def get(self, key: str, make: Callable[[], V]) -> V:
        """Returns the value of `key`; makes it if there is none."""
        value = self._alive.get(key)
        if value is None:
            value = make()
            self.made += 1
            self._alive[key] = value
        self._kept[key] = value
        self._kept.move_to_end(key)
        while self.kept_bytes > self.max_bytes:
            self._kept.popitem(last=False)
        return value
