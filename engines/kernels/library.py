"""The compiled library: whether it is installed, the instruction sets that this CPU has, and the thread pools."""

from __future__ import annotations

import ctypes
import sysconfig
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]

_LIBRARY = Path(__file__).with_name(f"_kernels{sysconfig.get_config_var('EXT_SUFFIX')}")
_SIMD_WIDTHS = (16, 8, 4)  # floats in a vector of the instruction sets that it is compiled for, best first
T3, S3GEN = "t3", "s3gen"  # the pools of their kernels
MISSING = "the compiled kernels are missing; install Mynah on a machine with a C compiler"
MIN_SIMD_WIDTH = _SIMD_WIDTHS[-1]
FP16_FROM_WIDTH = 8  # wider instruction sets convert float16 as they read it
TILE_DEPTH = 32  # steps of depth, and columns, that AMX multiplies at once
LINE_FLOATS = 16  # of a cache
_MAX_ERROR = 1e-3  # measured: 5e-5 at most
_POOLS: dict[str, tuple[tuple[int, int], ...]] = {}


@cache
def library() -> ctypes.CDLL | None:
    """The compiled library; None if the installation had no C compiler."""
    if not _LIBRARY.exists():
        return None
    functions = ctypes.CDLL(str(_LIBRARY))
    functions.mynah_thread_pool.restype = ctypes.c_void_p
    functions.mynah_thread_pool.argtypes = [ctypes.c_int]
    functions.mynah_thread_pool_share.argtypes = [ctypes.c_void_p, ctypes.c_int]
    functions.mynah_thread_pool_share.restype = None
    return functions


def simd_widths() -> tuple[int, ...]:
    """The vector widths, in floats, that this CPU has and the library is compiled for, best first; () without it."""
    functions = library()
    if functions is None:
        return ()
    widest = functions.mynah_simd_width()
    return tuple(width for width in _SIMD_WIDTHS if width <= widest)


def best_simd_width(*channels: int) -> int | None:
    """The largest of `simd_widths` that divides all these numbers of channels; None if there is none."""
    return next((width for width in simd_widths() if all(count % width == 0 for count in channels)), None)


def panels(weights: F32, simd_width: int) -> F32:
    """(..., depth, out) laid out for a kernel's products: panels of (..., depth, 2 x SIMD width), one after the other;
    the last may be narrower."""
    width = 2 * simd_width
    starts = range(0, weights.shape[-1], width)
    return np.concatenate([weights[..., start : start + width].ravel() for start in starts])


@cache
def amx_supported() -> bool:
    """Whether this CPU has tiles for bfloat16, the library is compiled for them, and the system lets us use them."""
    functions = library()
    return functions is not None and bool(functions.mynah_amx())


def fit_amx(*channels: int) -> bool:
    """Whether products of these numbers of channels run on AMX here: there are tiles, and all divide into them."""
    return amx_supported() and all(count % TILE_DEPTH == 0 for count in channels)


def line_behind(address: int) -> int:
    """The first line of the cache from this address on, at most LINE_FLOATS behind it."""
    return address + -address % (4 * LINE_FLOATS)


def aligned(array: F32) -> F32:
    """A copy as float32, in C order, that begins with a line of the cache."""
    room = np.empty(array.size + LINE_FLOATS, np.float32)
    start = (line_behind(room.ctypes.data) - room.ctypes.data) // 4
    copy = room[start : start + array.size].reshape(array.shape)
    copy[:] = array
    return copy


def tile_pairs(weights: F32) -> F32:
    """Weights (depth, out), both whole TILE_DEPTHs, as the right operand of amx.h's products: panels of 32 columns, in
    each 32 steps of depth and in those two pairs of tiles, of 16 columns each. The bits of two bfloat16 numbers lie in
    each of what looks like a float."""
    depth, outputs = weights.shape
    tiles = weights.reshape(depth // TILE_DEPTH, 16, 2, outputs // 32, 2, 16).transpose(3, 0, 4, 1, 5, 2)
    upper = _bfloat16(tiles)
    lower = _bfloat16(tiles - upper)
    pairs = np.stack([upper, lower], axis=3)  # (panel, step, half, part, 16, 16, 2)
    halves = (np.ascontiguousarray(pairs).view(np.uint32) >> 16).astype(np.uint16)
    return halves.ravel().view(np.float32)


def conv_pairs(weight: F32) -> F32:
    """A convolution's weight (out, in, taps) as `tile_pairs`: depth is 32 channels, within those each tap."""
    outputs, inputs, taps = weight.shape
    by_tap = weight.reshape(outputs, inputs // TILE_DEPTH, TILE_DEPTH, taps).transpose(1, 3, 2, 0)
    return tile_pairs(by_tap.reshape(-1, outputs))


def _bfloat16(x: F32) -> F32:
    """The nearest numbers of bfloat16's precision, of finite ones."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).astype(np.uint32).view(np.float32)


def disagreement(what: str, error: float) -> str | None:
    """Why compiled blocks may not replace a net's own; None if they may.

    what: the blocks, in the plural
    error: the largest difference of a value, relative to the level
    """
    if error < _MAX_ERROR:  # false for NaN
        return None
    return f"its compiled {what} are off by {error:.2g} of their level here, {_MAX_ERROR:g} at most"


@cache
def thread_pool(threads: int, name: str) -> int:
    """The pool of this name, which runs one job at a time on `threads` threads, the caller's included.

    Raises MemoryError. Its threads do not survive a fork, like torch's: a forked child would wait for ever.
    """
    functions = library()
    assert functions is not None
    pool = functions.mynah_thread_pool(threads)
    if pool is None:
        raise MemoryError("no memory for the threads of the compiled kernels")
    _POOLS[name] = (*pools(name), (threads, int(pool)))
    return int(pool)


def pools(name: str) -> tuple[tuple[int, int], ...]:
    """The pools of this name, each with its threads."""
    return _POOLS.get(name, ())
