"""Norms of a few rows on norm.c. The structure here must agree with it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import cast

import numpy as np

from engines.kernels.library import F32, best_simd_width, library


class NormCall(ctypes.Structure):
    """norm.h's structure."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "factors", "offsets", "out")),
        ("rows", ctypes.c_int64),
        ("channels", ctypes.c_int64),
        ("epsilon", ctypes.c_float),
    )


class Norm:
    """Layer norm, or without offsets the norm by the root of the mean square.

    Raises ValueError for a number of channels that is not whole vectors, or without the library.
    """

    def __init__(self, factors: F32, offsets: F32 | None, epsilon: float) -> None:
        """factors and offsets (channels,)"""
        width = best_simd_width(len(factors))
        if width is None:
            raise ValueError(f"no compiled norm of {len(factors)} channels")
        self.simd_width, self.channels, self._epsilon = width, len(factors), epsilon
        self._factors = np.ascontiguousarray(factors, np.float32)
        self._offsets = None if offsets is None else np.ascontiguousarray(offsets, np.float32)

    def call(self, x: int | None = None, rows: int = 0, out: int | None = None) -> NormCall:
        """The structure for `run`, or without arrays for a kernel that fills them in; it refers to this memory."""
        offsets = None if self._offsets is None else self._offsets.ctypes.data
        return NormCall(x, self._factors.ctypes.data, offsets, out, rows, self.channels, self._epsilon)

    def run(self, x: int, rows: int, out: int) -> None:
        """Addresses of floats: x and out (rows, channels)."""
        _function()(self.simd_width, ctypes.byref(self.call(x, rows, out)))


@cache
def _function() -> Callable[..., None]:
    """mynah_norm."""
    functions = library()
    assert functions is not None
    run = functions.mynah_norm
    run.restype, run.argtypes = None, [ctypes.c_int, ctypes.POINTER(NormCall)]
    return cast(Callable[..., None], run)
