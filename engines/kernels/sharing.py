"""How the nets share the cores: while S3Gen computes, T3's kernels use half of their threads.

A step of T3 is bound by memory, which half of the cores read nearly as fast. With all of them it would have to wait at
the end of each layer for a thread that S3Gen has displaced, and S3Gen for those that it displaces.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from engines.kernels.library import T3, library, pools

_lock = threading.Lock()
_calls = 0  # of S3Gen that run


@contextmanager
def beside_t3() -> Iterator[None]:
    """A call of S3Gen, from any thread. Changes no result: which thread takes a piece of work never does."""
    _change(1)
    try:
        yield
    finally:
        _change(-1)


def _change(by: int) -> None:
    global _calls
    with _lock:
        _calls += by
        functions = library()
        if functions is None:
            return
        for threads, pool in pools(T3):
            functions.mynah_thread_pool_share(pool, max(1, threads // 2) if _calls else threads)
