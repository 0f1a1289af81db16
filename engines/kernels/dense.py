"""A dense layer as dense.c computes it: its weights laid out for it, and the call.

Knows the compiled library's functions and structure, which must agree with dense.c; knows no net.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import cast

import numpy as np
import numpy.typing as npt

from engines.kernels.library import F32, lanes_here, library, panels, team

PLAIN, GELU, ADD = range(3)  # what is left: the result, its GELU in the tanh form, the sum with a residual
_HALVES_FROM_LANES = 8  # instruction sets that widen halves as they read them


class _Dense(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "weights", "bias", "residual", "out")),
        *((name, ctypes.c_int64) for name in ("rows", "depth", "outputs")),
        *((name, ctypes.c_int32) for name in ("halves", "kind")),
    )


def halves_here() -> bool:
    """Whether this CPU can keep weights in float16."""
    return bool(lanes_here()) and lanes_here()[0] >= _HALVES_FROM_LANES


class DenseLayer:
    """x times a weight, plus a bias. Raises ValueError where there is no library, or no halves."""

    def __init__(
        self, weight: F32, bias: F32, threads: int, *, halves: bool, who: str, lanes: int | None = None
    ) -> None:
        """weight (in, out), bias (out,). `halves`: keep the weight in float16. `who`: layers of one name share threads
        and wait for each other. `lanes`: one of `lanes_here`."""
        best = lanes or next(iter(lanes_here()), None)
        if best is None or (halves and best < _HALVES_FROM_LANES):
            raise ValueError("no compiled dense layers on this machine, or none that keep weights in float16")
        self._lanes, self._threads, self._who, self._halves = best, threads, who, halves
        self.outputs = len(bias)
        self.width = -(-self.outputs // best) * best  # of `run`'s result: the outputs, and columns without a meaning
        spare = self.width - self.outputs
        laid_out = panels(np.pad(weight, ((0, 0), (0, spare))), best)
        self._weights: npt.NDArray[np.generic] = laid_out.astype(np.float16) if halves else laid_out
        self._bias = np.pad(bias, (0, spare)).astype(np.float32)
        self._depth = len(weight)

    def work_floats(self, rows: int) -> int:
        """How many floats `run` writes over besides its result."""
        floats: int = _functions()[1](rows, self._threads)
        return floats

    def run(self, x: int, rows: int, out: int, work: int, kind: int = PLAIN, residual: int | None = None) -> None:
        """Addresses of floats: x (rows, in), out and with ADD residual (rows, `width`), work of `work_floats`."""
        layer = _Dense(
            x, self._weights.ctypes.data, self._bias.ctypes.data, residual, out,
            rows, self._depth, self.width, self._halves, kind,
        )  # fmt: skip
        _functions()[0](team(self._threads, self._who), self._lanes, ctypes.byref(layer), work)


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
