"""A lock that many may hold at once, or one alone: loading T3's engine changes what the whole process computes with.

vLLM loads a model with another default precision of torch, which is one for all threads, and captures its CUDA graphs
so that calls of other threads fail. Nothing else of the engine may compute meanwhile.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class Exclusive:
    """Shared by many threads, or held by one that waits for the others and keeps new ones waiting."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sharing = 0
        self._alone = False

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Work beside others that share."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._sharing += 1
        try:
            yield
        finally:
            with self._changed:
                self._sharing -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Work while nothing else does."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._alone = True
            self._changed.wait_for(lambda: self._sharing == 0)
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()
