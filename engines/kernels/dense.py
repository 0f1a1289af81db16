"""A dense layer on dense.c: the layout of its weights, and the call. The structure here must agree with dense.c."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from engines.kernels.library import F32, best_simd_width, library, panels, simd_widths, thread_pool

PLAIN, GELU, ADD = range(3)  # the result, its GELU in the tanh form, or its sum with a residual
WeightFormat = Literal["float32", "float16", "int8"]
_FORMATS: tuple[WeightFormat, ...] = ("float32", "float16", "int8")
_FP16_FROM_WIDTH = 8  # wider instruction sets convert float16 as they read it
_BLOCK = 32  # steps of depth whose 8-bit weights share a scale


class _Dense(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "weights", "bias", "residual", "out")),
        *((name, ctypes.c_int64) for name in ("rows", "depth", "outputs")),
        *((name, ctypes.c_int32) for name in ("precision", "kind")),
    )


def fp16_supported() -> bool:
    """Whether this CPU can keep weights in float16."""
    return bool(simd_widths()) and simd_widths()[0] >= _FP16_FROM_WIDTH


def int8_supported() -> bool:
    """Whether this machine can keep weights in 8 bits, which every instruction set of the library widens."""
    return bool(simd_widths())


class DenseLayer:
    """x times a weight, plus a bias. Raises ValueError without the library, or if the CPU has no float16 weights."""

    def __init__(
        self,
        weight: F32,
        bias: F32,
        threads: int,
        *,
        weights: WeightFormat,
        pool: str,
        simd_width: int | None = None,
    ) -> None:
        """weight (in, out), bias (out,)

        weights: how the weight is kept; arithmetic is float32
        pool: the name of the thread pool; its layers wait for each other
        simd_width: one of `simd_widths`, by default the best
        """
        best = simd_width or best_simd_width()
        if best is None or (weights == "float16" and best < _FP16_FROM_WIDTH):
            raise ValueError("no compiled dense layers on this machine, or none that keep weights in float16")
        self._simd_width, self._threads, self._pool, self._format = best, threads, pool, weights
        self.outputs = len(bias)
        self.width = -(-self.outputs // best) * best  # of `run`'s result: the outputs, then unused columns
        spare = self.width - self.outputs
        self._weights = _laid_out(np.pad(weight, ((0, 0), (0, spare))), best, weights)
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
            rows, self._depth, self.width, _FORMATS.index(self._format), kind,
        )  # fmt: skip
        _functions()[0](thread_pool(self._threads, self._pool), self._simd_width, ctypes.byref(layer), work)


def int8_blocks(weight: F32) -> tuple[npt.NDArray[np.int8], F32]:
    """Returns a weight (in, out) as 8-bit numbers, and the scales (blocks, out) of each 32 of them along the depth.

    Scales are of bfloat16's precision, rounded up, so that no number is clipped.
    """
    depth, outputs = weight.shape
    blocks = -(-depth // _BLOCK)
    padded = np.pad(weight, ((0, blocks * _BLOCK - depth), (0, 0))).reshape(blocks, _BLOCK, outputs)
    largest = np.abs(padded).max(axis=1).astype(np.float32) / np.float32(127)
    scales = ((largest.view(np.uint32) + 0xFFFF) & 0xFFFF0000).view(np.float32)
    numbers = np.rint(padded / np.where(scales == 0, np.float32(1), scales)[:, None])
    return numbers.astype(np.int8).reshape(-1, outputs)[:depth], scales


def _laid_out(weight: F32, simd_width: int, weights: WeightFormat) -> npt.NDArray[np.generic]:
    """Panels of a weight (in, out) in its format, as dense.c reads them."""
    if weights != "int8":
        laid_out = panels(weight, simd_width)
        return laid_out.astype(np.float16) if weights == "float16" else laid_out
    numbers, scales = int8_blocks(weight)
    halves = (scales.view(np.uint32) >> 16).astype(np.uint16)
    parts: list[npt.NDArray[np.uint8]] = []
    for start in range(0, weight.shape[1], 2 * simd_width):
        columns = slice(start, start + 2 * simd_width)
        for block in range(len(scales)):
            parts.append(np.ascontiguousarray(halves[block, columns]).view(np.uint8))
            rows = numbers[block * _BLOCK : (block + 1) * _BLOCK, columns]
            parts.append(np.ascontiguousarray(rows).view(np.uint8).ravel())
    return np.concatenate(parts)


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
