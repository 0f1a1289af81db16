"""A dense layer on dense.c: the layout of its weights, and the call. The structure here must agree with dense.c."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import cast

import numpy as np
import numpy.typing as npt

from engines.kernels.library import F32, library, panels, simd_widths, thread_pool

PLAIN, GELU, ADD = range(3)  # the result, its GELU in the tanh form, or its sum with a residual
_FP16_FROM_WIDTH = 8  # wider instruction sets convert float16 as they read it


class _Dense(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "weights", "bias", "residual", "out")),
        *((name, ctypes.c_int64) for name in ("rows", "depth", "outputs")),
        *((name, ctypes.c_int32) for name in ("fp16_weights", "kind")),
    )


def fp16_supported() -> bool:
    """Whether this CPU can keep weights in float16."""
    return bool(simd_widths()) and simd_widths()[0] >= _FP16_FROM_WIDTH


class DenseLayer:
    """x times a weight, plus a bias. Raises ValueError without the library, or if the CPU has no float16 weights."""

    def __init__(
        self, weight: F32, bias: F32, threads: int, *, fp16_weights: bool, pool: str, simd_width: int | None = None
    ) -> None:
        """weight (in, out), bias (out,)

        fp16_weights: keep the weight in float16
        pool: the name of the thread pool; its layers wait for each other
        simd_width: one of `simd_widths`, by default the best
        """
        best = simd_width or next(iter(simd_widths()), None)
        if best is None or (fp16_weights and best < _FP16_FROM_WIDTH):
            raise ValueError("no compiled dense layers on this machine, or none that keep weights in float16")
        self._simd_width, self._threads, self._pool, self._fp16 = best, threads, pool, fp16_weights
        self.outputs = len(bias)
        self.width = -(-self.outputs // best) * best  # of `run`'s result: the outputs, then unused columns
        spare = self.width - self.outputs
        laid_out = panels(np.pad(weight, ((0, 0), (0, spare))), best)
        self._weights: npt.NDArray[np.generic] = laid_out.astype(np.float16) if fp16_weights else laid_out
        self._bias = np.pad(bias, (0, spare)).astype(np.float32)
        self._depth = len(weight)

    def work_floats(self, rows: int) -> int:
        """The floats of `work` that `run` needs."""
        floats: int = _functions()[1](rows, self._threads)
        return floats

    def run(self, x: int, rows: int, out: int, work: int, kind: int = PLAIN, residual: int | None = None) -> None:
        """Addresses of floats: x (rows, in), out and with ADD residual (rows, `width`), work of `work_floats`."""
        layer = _Dense(
            x, self._weights.ctypes.data, self._bias.ctypes.data, residual, out,
            rows, self._depth, self.width, self._fp16, kind,
        )  # fmt: skip
        _functions()[0](thread_pool(self._threads, self._pool), self._simd_width, ctypes.byref(layer), work)


@cache
def _functions() -> tuple[Callable[..., None], Callable[..., int]]:
    """mynah_dense and mynah_dense_floats."""
    functions = library()
    assert functions is not None
    run, floats = functions.mynah_dense, functions.mynah_dense_floats
    run.restype, floats.restype = None, ctypes.c_long
    run.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Dense), ctypes.c_void_p]
    floats.argtypes = [ctypes.c_long, ctypes.c_int]
    return cast(Callable[..., None], run), cast(Callable[..., int], floats)
