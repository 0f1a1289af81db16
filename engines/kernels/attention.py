"""The attention of T3's step on attention.c: one row each of several sequences. The structures must agree with it."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import cast

import numpy as np

from engines.kernels.library import FP16_FROM_WIDTH, best_simd_width, library, thread_pool

_VECTORS = (1, 2, 3, 4, 6, 8, 12, 16)  # that a head may have
_SEQUENCE_FIELDS = 6
_WORK_VECTORS = 5  # of a head, for each row: its query, and four sums


class AttentionCall(ctypes.Structure):
    """attention.h's structure."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("qkv", "sequences", "groups", "out")),
        *((name, ctypes.c_int64) for name in ("group_count", "layer", "heads", "dim", "group_rows", "work_floats")),
        ("scale", ctypes.c_float),
        ("half", ctypes.c_int32),
    )


@dataclass(frozen=True)
class CachedSequence:
    """Where a sequence's keys and values are: addresses, of float32 or all of float16.

    cache             (layers, 2, heads, capacity, dim), of which `positions` are held
    prefix            (layers, 2, heads, prefix_positions, dim), equal to the start of `cache`, and shared with others
    """

    cache: int
    capacity: int
    positions: int
    prefix: int = 0
    prefix_positions: int = 0


def attention_width(dim: int, *, half: bool = False) -> int | None:
    """The SIMD width for heads of this dimension; None if the kernel cannot compute them on this machine.

    half: caches are float16
    """
    width = best_simd_width(dim)
    if width is None or (half and width < FP16_FROM_WIDTH):
        return None
    return width if dim // width in _VECTORS else None


class StepAttention:
    """Attends in all layers of one step. The sequences' memory must stay where it is until then."""

    def __init__(
        self,
        sequences: Sequence[CachedSequence],
        heads: int,
        dim: int,
        threads: int,
        pool: str,
        simd_width: int,
        *,
        half: bool = False,
    ) -> None:
        """
        simd_width: of `attention_width(dim, half=half)`
        pool: the name of the thread pool
        half: caches are float16
        """
        order = sorted(range(len(sequences)), key=lambda row: sequences[row].prefix)
        table = [
            (s.cache, s.prefix, s.capacity, s.positions, s.prefix_positions, row)
            for row in order
            for s in (sequences[row],)
        ]
        # a sequence without a prefix is a group of its own
        starts = [i for i, s in enumerate(table) if i == 0 or not s[1] or s[1] != table[i - 1][1]]
        self._groups = np.array([*starts, len(table)], np.int64)
        self._table = np.array(table, np.int64).reshape(-1, _SEQUENCE_FIELDS)
        self._rows = max(b - a for a, b in pairwise(self._groups.tolist()))
        longest = max(s.positions for s in sequences) + 1
        self.heads, self.dim, self.threads = heads, dim, threads
        self.simd_width, self._half = simd_width, half
        # scores are stored by whole vectors, of the shared positions and of those behind them
        room = _WORK_VECTORS * dim + (-(-longest // simd_width) + 1) * simd_width
        self._work = np.empty((threads, self._rows * room), np.float32)
        self._pool = thread_pool(threads, pool)

    @property
    def work(self) -> int:
        """The address of the floats that the kernel works in."""
        return self._work.ctypes.data

    def call(self, layer: int = 0, qkv: int | None = None, out: int | None = None) -> AttentionCall:
        """The structure for `run`, or without arrays for a kernel that fills them in; it refers to this memory."""
        return AttentionCall(
            qkv, self._table.ctypes.data, self._groups.ctypes.data, out,
            len(self._groups) - 1, layer, self.heads, self.dim, self._rows, self._work.shape[1],
            math.log2(math.e) / math.sqrt(self.dim), self._half,
        )  # fmt: skip

    def run(self, layer: int, qkv: int, out: int) -> None:
        """Addresses of floats: qkv (rows, 3, heads, dim), whose keys and values are written behind those held, and
        out (rows, heads, dim)."""
        _function()(self._pool, self.simd_width, ctypes.byref(self.call(layer, qkv, out)), self.work)


@cache
def _function() -> Callable[..., None]:
    """mynah_attention."""
    functions = library()
    assert functions is not None
    run = functions.mynah_attention
    run.restype = None
    run.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(AttentionCall), ctypes.c_void_p]
    return cast(Callable[..., None], run)
