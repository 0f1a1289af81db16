"""The bounded queue between a session's speaker and its reader."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class EventQueue(Generic[T]):
    """A queue for one reader and any number of writers. A writer waits while `capacity` items are unread."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._finished = False
        self._failure: Exception | None = None
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def failed(self) -> bool:
        return self._failure is not None

    async def put(self, item: T) -> None:
        """Wait for room, then add. A cancelled put has added nothing."""
        while len(self._items) >= self._capacity:
            self._writable.clear()
            await self._writable.wait()
        self._items.append(item)
        self._readable.set()

    async def get(self) -> T | None:
        """The oldest item. When the queue is empty: None after `finish()`; raises the failure of `finish(failure)`."""
        while not self._items:
            if self._failure is not None:
                raise self._failure
            if self._finished:
                return None
            self._readable.clear()
            await self._readable.wait()
        self._writable.set()
        return self._items.popleft()

    def drop(self, keep: Callable[[T], bool]) -> list[T]:
        """Remove the unread items that `keep` does not want. Returns the removed ones."""
        dropped = [item for item in self._items if not keep(item)]
        self._items = deque(item for item in self._items if keep(item))
        self._writable.set()
        return dropped

    def finish(self, failure: Exception | None = None) -> None:
        """End the queue: no more items follow."""
        self._finished, self._failure = True, failure
        self._readable.set()
