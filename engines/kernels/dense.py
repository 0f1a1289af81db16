"""Dense layers on dense.c, dense_int8.c and dense_amx.c: the layout of their weights, and the calls.

The structure here must agree with dense.h.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from engines.kernels.library import (
    F32,
    FP16_FROM_WIDTH,
    LINE_FLOATS,
    aligned,
    best_simd_width,
    fit_amx,
    library,
    line_behind,
    panels,
    simd_widths,
    thread_pool,
    tile_pairs,
)

PLAIN, GELU, ADD = range(3)  # the result, its GELU in the tanh form, or its sum with a residual
WeightFormat = Literal["float32", "float16", "int8"]
_FORMATS: tuple[WeightFormat, ...] = ("float32", "float16", "int8")
_BLOCK = 32  # steps of depth whose 8-bit weights share a scale
_LARGEST_NUMBER, _SMALLEST = np.float32(32639), np.float32(1e-30)  # of a row beside 8-bit weights


class DenseCall(ctypes.Structure):
    """dense.h's structure."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "weights", "bias", "residual", "out")),
        *((name, ctypes.c_int64) for name in ("rows", "depth", "outputs")),
        *((name, ctypes.c_int32) for name in ("precision", "kind")),
    )


def fp16_supported() -> bool:
    """Whether this CPU can keep weights in float16."""
    return bool(simd_widths()) and simd_widths()[0] >= FP16_FROM_WIDTH


def int8_supported() -> bool:
    """Whether this machine can keep weights in 8 bits, which every instruction set of the library multiplies."""
    return bool(simd_widths())


def vnni_supported(simd_width: int) -> bool:
    """Whether this CPU multiplies 8-bit numbers in one instruction, in vectors of this number of floats."""
    return bool(_functions().vnni(simd_width))


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
        vnni: bool = True,
    ) -> None:
        """weight (in, out), bias (out,)

        weights: how the weight is kept. Arithmetic is float32; with int8, rows are read as `int16_blocks`, and the sums
            of blocks are exact integers, so every instruction set gives the same up to the order of float32 sums
        pool: the name of the thread pool; its layers wait for each other
        simd_width: one of `simd_widths`, by default the best
        vnni: whether int8 uses the CPU's instruction for it, where it has one
        """
        best = simd_width or best_simd_width()
        if best is None or (weights == "float16" and best < FP16_FROM_WIDTH):
            raise ValueError("no compiled dense layers on this machine, or none that keep weights in float16")
        self.simd_width, self.threads, self.pool, self._format = best, threads, pool, weights
        self.vnni = vnni and vnni_supported(best)
        self.outputs = len(bias)
        self.width = -(-self.outputs // best) * best  # of `run`'s result: the outputs, then unused columns
        spare = self.width - self.outputs
        self._weights = _laid_out(np.pad(weight, ((0, 0), (0, spare))), best, weights)
        self._bias = np.pad(bias, (0, spare)).astype(np.float32)
        self.depth = len(weight)

    def work_floats(self, rows: int) -> int:
        """The floats of `work` that `run` needs."""
        if self._format == "int8":
            return _functions().int8_floats(rows, self.depth, self.threads)
        return _functions().floats(rows, self.threads)

    def call(
        self, kind: int, x: int | None = None, rows: int = 0, out: int | None = None, residual: int | None = None
    ) -> DenseCall:
        """The structure for `run`, or without arrays for a kernel that fills them in; it refers to this memory."""
        return DenseCall(
            x, self._weights.ctypes.data, self._bias.ctypes.data, residual, out,
            rows, self.depth, self.width, _FORMATS.index(self._format), kind,
        )  # fmt: skip

    def run(self, x: int, rows: int, out: int, work: int, kind: int = PLAIN, residual: int | None = None) -> None:
        """Addresses of floats: x (rows, in), out and with ADD residual (rows, `width`), work of `work_floats`."""
        layer = self.call(kind, x, rows, out, residual)
        pool = thread_pool(self.threads, self.pool)
        if self._format == "int8":
            _functions().run_int8(pool, self.simd_width, self.vnni, ctypes.byref(layer), work)
        else:
            _functions().run(pool, self.simd_width, ctypes.byref(layer), work)


class TileLayer:
    """The same on AMX for many rows, without kinds: the weight is kept in pairs of tiles.

    Raises ValueError where there is no AMX, or for numbers of inputs and outputs that are not whole tiles.
    """

    def __init__(self, weight: F32, bias: F32, threads: int, *, pool: str) -> None:
        """weight (in, out), bias (out,)"""
        if not fit_amx(*weight.shape):
            raise ValueError(f"no dense layers of {weight.shape[0]} inputs and {weight.shape[1]} outputs on AMX here")
        self._threads, self._pool = threads, pool
        self._depth, self.outputs = weight.shape
        self._weights, self._bias = aligned(tile_pairs(weight)), aligned(bias)

    def work_floats(self, rows: int) -> int:
        """The floats of `work` that `run` needs."""
        return LINE_FLOATS + _amx_functions()[1](rows, self._depth)

    def run(self, x: int, rows: int, out: int, work: int) -> None:
        """Addresses of floats: x (rows, in), out (rows, out), work of `work_floats`."""
        layer = DenseCall(
            x, self._weights.ctypes.data, self._bias.ctypes.data, None, out, rows, self._depth, self.outputs, 0, PLAIN
        )
        _amx_functions()[0](thread_pool(self._threads, self._pool), ctypes.byref(layer), line_behind(work))


def int16_blocks(x: F32) -> tuple[npt.NDArray[np.int16], F32]:
    """Returns rows (N, in) as the numbers that a layer with 8-bit weights multiplies, and the scales (N, blocks) of
    each 32 of them. A block whose numbers are all below 1e-30 is zero."""
    rows, depth = x.shape
    blocks = -(-depth // _BLOCK)
    padded = np.pad(x, ((0, 0), (0, blocks * _BLOCK - depth))).reshape(rows, blocks, _BLOCK)
    largest = np.abs(padded).max(axis=2)
    kept = largest > _SMALLEST
    inverse = np.where(kept, _LARGEST_NUMBER / np.where(kept, largest, np.float32(1)), np.float32(0))
    numbers = np.rint(padded * inverse[..., None]).astype(np.int16)
    return numbers.reshape(rows, -1)[:, :depth], np.where(kept, largest / _LARGEST_NUMBER, np.float32(0))


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
    depth, outputs = weight.shape
    groups = np.pad(numbers, ((0, len(scales) * _BLOCK - depth), (0, 0))).reshape(len(scales), _BLOCK // 4, 4, outputs)
    halves = (scales.view(np.uint32) >> 16).astype(np.uint16)
    parts: list[npt.NDArray[np.uint8]] = []
    for start in range(0, outputs, 2 * simd_width):
        columns = slice(start, start + 2 * simd_width)
        scale_bytes = np.ascontiguousarray(halves[:, columns]).view(np.uint8)
        number_bytes = groups[..., columns].swapaxes(2, 3).reshape(len(scales), -1).view(np.uint8)
        parts.append(np.concatenate([scale_bytes, number_bytes], axis=1).ravel())
    return np.concatenate(parts)


class _Functions(NamedTuple):
    run: Callable[..., None]
    floats: Callable[..., int]
    run_int8: Callable[..., None]
    int8_floats: Callable[..., int]
    vnni: Callable[[int], int]


@cache
def _functions() -> _Functions:
    functions = library()
    assert functions is not None
    pointers: list[Any] = [ctypes.POINTER(DenseCall), ctypes.c_void_p]
    for run, arguments in ((functions.mynah_dense, []), (functions.mynah_dense_int8, [ctypes.c_int])):
        run.restype, run.argtypes = None, [ctypes.c_void_p, ctypes.c_int, *arguments, *pointers]
    floats, int8_floats = functions.mynah_dense_floats, functions.mynah_dense_int8_floats
    floats.restype = int8_floats.restype = ctypes.c_long
    floats.argtypes = [ctypes.c_long, ctypes.c_int]
    int8_floats.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_int]
    functions.mynah_vnni.argtypes = [ctypes.c_int]
    return _Functions(functions.mynah_dense, floats, functions.mynah_dense_int8, int8_floats, functions.mynah_vnni)


@cache
def _amx_functions() -> tuple[Callable[..., None], Callable[..., int]]:
    """mynah_dense_amx and mynah_dense_amx_floats."""
    functions = library()
    assert functions is not None
    run, floats = functions.mynah_dense_amx, functions.mynah_dense_amx_floats
    run.restype, floats.restype = None, ctypes.c_long
    run.argtypes = [ctypes.c_void_p, ctypes.POINTER(DenseCall), ctypes.c_void_p]
    floats.argtypes = [ctypes.c_long, ctypes.c_long]
    return cast(Callable[..., None], run), cast(Callable[..., int], floats)
