"""The compiled library: whether it is there, what this CPU can run of it, and the threads that it runs on.

Knows no net; resblocks.py, transformer.py and dense.py each know one kernel's structures and calls.
"""

from __future__ import annotations

import ctypes
import sysconfig
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]

_LIBRARY = Path(__file__).with_name(f"_kernels{sysconfig.get_config_var('EXT_SUFFIX')}")
_LANES = (16, 8, 4)  # floats in a vector of the instruction sets that it is compiled for, best first
S3GEN = "s3gen"  # the team of S3Gen's kernels
MISSING = "the compiled kernels are missing; install Mynah where there is a C compiler"
LEAST_LANES = _LANES[-1]
_MOST_ERROR = 1e-3  # 5e-5 was seen for residual blocks, 2e-6 for transformer blocks


@cache
def library() -> ctypes.CDLL | None:
    """The compiled arithmetic, None where the installation had no C compiler."""
    if not _LIBRARY.exists():
        return None
    functions = ctypes.CDLL(str(_LIBRARY))
    functions.mynah_team.restype = ctypes.c_void_p
    functions.mynah_team.argtypes = [ctypes.c_int]
    return functions


def lanes_here() -> tuple[int, ...]:
    """Of the instruction sets it is compiled for, those that this CPU has, best first; () without the library."""
    functions = library()
    return () if functions is None else tuple(lanes for lanes in _LANES if lanes <= functions.mynah_lanes())


def lanes_for(*widths: int) -> int | None:
    """The best instruction set whose vectors all of these numbers of channels fill, None if there is none."""
    return next((lanes for lanes in lanes_here() if all(width % lanes == 0 for width in widths)), None)


def panels(weights: F32, lanes: int) -> F32:
    """(..., depth, out) laid out for a kernel's products: panels of (..., depth, 2 x lanes), one after the other; the
    last may be thinner."""
    width = 2 * lanes
    starts = range(0, weights.shape[-1], width)
    return np.concatenate([weights[..., start : start + width].ravel() for start in starts])


def disagreement(what: str, error: float) -> str | None:
    """Why compiled blocks may not stand in for a net's own, being off by `error` of the level at the worst value.

    None where they may.
    """
    if error < _MOST_ERROR:  # NaN is not
        return None
    return f"its compiled {what} blocks are off by {error:.2g} of their level here, {_MOST_ERROR:g} at most"


@cache
def team(threads: int, who: str) -> int:
    """The threads that share the work with the caller's, the same for everybody who gives this name: they do one job
    at a time. Raises MemoryError.

    A forked child would wait for them for ever, as it would for torch's.
    """
    functions = library()
    assert functions is not None
    made = functions.mynah_team(threads)
    if made is None:
        raise MemoryError("no memory for the threads of the compiled kernels")
    return int(made)
