"""The draws of speech tokens on draws.c: a token for each row of logits. The structures must agree with it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple, cast

import numpy as np

from engines.kernels.library import library, thread_pool


class _Draw(ctypes.Structure):
    _fields_ = (
        ("logits", ctypes.c_void_p),
        ("seen", ctypes.c_void_p),
        ("temperature", ctypes.c_float),
        ("top_k", ctypes.c_int64),
        ("cut_mass", ctypes.c_double),
        ("penalty", ctypes.c_float),
        ("log_min_p", ctypes.c_double),
        ("greedy", ctypes.c_int32),
        ("first", ctypes.c_int32),
        ("number", ctypes.c_double),
        ("token", ctypes.c_int64),
    )


class _Draws(ctypes.Structure):
    _fields_ = (
        ("draws", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("count", "vocab", "start_mark", "work_bytes")),
        ("guided", ctypes.c_int32),
    )


class Row(NamedTuple):
    """A row to draw for.

    logits    the address of (vocab) floats
    seen      the address of (vocab) bytes, 0 or 1, which the draw brings up to date
    settings  temperature, top_k, cut_mass, penalty, log_min_p, greedy, first, number: engines/t3/sampler.py has them
    """

    logits: int
    seen: int
    settings: tuple[float, ...]


class TokenDraws:
    """Draws for up to `rows` rows at once, in memory that is allocated once."""

    def __init__(
        self, rows: int, vocab: int, start_mark: int, threads: int, pool: str, simd_width: int, *, guided: bool
    ) -> None:
        """simd_width: one of `simd_widths`; pool: the name of the thread pool

        guided: penalty, temperature, min_p, top-k, top-p; else temperature, top-k, top-p, penalty
        """
        self._table = (_Draw * rows)()
        bytes_of_thread = _functions()[1](vocab)
        self._work = np.zeros((threads, bytes_of_thread // 8))
        self._call = _Draws(ctypes.addressof(self._table), 0, vocab, start_mark, bytes_of_thread, guided)
        self._pool, self._simd_width = thread_pool(threads, pool), simd_width

    def run(self, rows: Sequence[Row]) -> list[int]:
        """The token of each row; -1, and nothing is added to `seen`, if its logits are not finite."""
        for index, row in enumerate(rows):
            self._table[index] = _Draw(row.logits, row.seen, *row.settings)
        self._call.count = len(rows)
        _functions()[0](self._pool, self._simd_width, ctypes.byref(self._call), self._work.ctypes.data)
        return [draw.token for draw in self._table[: len(rows)]]


@cache
def _functions() -> tuple[Callable[..., None], Callable[..., int]]:
    """mynah_draws and mynah_draws_bytes."""
    functions = library()
    assert functions is not None
    run, size = functions.mynah_draws, functions.mynah_draws_bytes
    run.restype, size.restype = None, ctypes.c_long
    run.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Draws), ctypes.c_void_p]
    size.argtypes = [ctypes.c_long]
    return cast(Callable[..., None], run), cast(Callable[..., int], size)
