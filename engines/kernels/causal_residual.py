"""A CFM's residual convolutions on causal_residual.c: the layout of their weights, and the call.

The structures here must agree with those there.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import cast

from engines.kernels.library import (
    F32,
    LINE_FLOATS,
    S3GEN,
    aligned,
    conv_pairs,
    fit_amx,
    library,
    line_behind,
    thread_pool,
)

TAPS = 3
_BLOCK_ROWS = 16  # of tiles


class _Convolution(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_void_p) for name in ("weights", "bias", "factors", "offsets"))


class _Block(ctypes.Structure):
    _fields_ = (
        ("inputs", ctypes.c_int64),
        ("channels", ctypes.c_int64),
        ("first", _Convolution),
        ("second", _Convolution),
        ("skip_weights", ctypes.c_void_p),
        ("skip_bias", ctypes.c_void_p),
    )


class _Sequence(ctypes.Structure):
    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in ("x", "time", "before_first", "before_second", "after_first", "after_second", "out")
        ),
        *((name, ctypes.c_int64) for name in ("frames", "new_frames", "before_floats")),
    )


@dataclass(frozen=True)
class Convolution:
    """weight (out, in, taps) and bias (out,), and the factors and offsets (out,) of the layer norm behind it"""

    weight: F32
    bias: F32
    factors: F32
    offsets: F32


@dataclass(frozen=True)
class State:
    """Addresses of the last TAPS - 1 inputs of both convolutions, oldest first.

    before: those of the block before, `before_floats` apart
    after: where those before frame `new_frames` are written, (TAPS - 1, in) and (TAPS - 1, out); None if none are
    """

    before: tuple[int, int]
    before_floats: int
    after: tuple[int, int] | None = None
    new_frames: int = 0


@dataclass(frozen=True)
class Row:
    """A row of a batch: addresses of x (frames, in), the embedded time (out,) and the result (frames, out)."""

    x: int
    time: int
    out: int
    frames: int
    state: State


class CausalResidual:
    """Two causal convolutions, each with layer norm and mish, the time added between them, and a third beside them.

    Raises ValueError where there is no AMX, or for a number of channels that is not whole tiles.
    """

    def __init__(self, first: Convolution, second: Convolution, skip: tuple[F32, F32], threads: int) -> None:
        """skip: weight (out, in) and bias (out,)"""
        channels, inputs, taps = first.weight.shape
        if not fit_amx(inputs, channels) or taps != TAPS:
            raise ValueError(f"no compiled residual convolutions of {inputs} to {channels} channels and {taps} taps")
        self._threads = threads
        self._kept: list[F32] = []  # what the structures point to
        self._block = _Block(
            inputs=inputs,
            channels=channels,
            first=self._convolution(first),
            second=self._convolution(second),
            skip_weights=self._keep(conv_pairs(skip[0][..., None])),
            skip_bias=self._keep(skip[1]),
        )

    def work_floats(self, rows: Sequence[Row]) -> int:
        """The floats of `work` that `run` needs."""
        frames = sum(-(-row.frames // _BLOCK_ROWS) * _BLOCK_ROWS for row in rows)
        return LINE_FLOATS + _functions()[1](ctypes.byref(self._block), frames, len(rows))

    def run(self, rows: Sequence[Row], work: int) -> None:
        """`work`: address of `work_floats` floats."""
        sequences = (_Sequence * len(rows))(*(_sequence(row) for row in rows))
        pool = thread_pool(self._threads, S3GEN)
        _functions()[0](pool, ctypes.byref(self._block), sequences, len(rows), line_behind(work))

    def _convolution(self, of: Convolution) -> _Convolution:
        return _Convolution(
            self._keep(conv_pairs(of.weight)), self._keep(of.bias), self._keep(of.factors), self._keep(of.offsets)
        )

    def _keep(self, array: F32) -> int:
        self._kept.append(aligned(array))
        return self._kept[-1].ctypes.data


def _sequence(row: Row) -> _Sequence:
    state = row.state
    after = state.after or (None, None)
    return _Sequence(row.x, row.time, *state.before, *after, row.out, row.frames, state.new_frames, state.before_floats)


@cache
def _functions() -> tuple[Callable[..., None], Callable[..., int]]:
    """mynah_causal_residual and mynah_causal_residual_floats."""
    functions = library()
    assert functions is not None
    pointer, long = ctypes.c_void_p, ctypes.c_long
    run, floats = functions.mynah_causal_residual, functions.mynah_causal_residual_floats
    run.restype, floats.restype = None, long
    run.argtypes = [pointer, ctypes.POINTER(_Block), ctypes.POINTER(_Sequence), long, pointer]
    floats.argtypes = [ctypes.POINTER(_Block), long, long]
    return cast(Callable[..., None], run), cast(Callable[..., int], floats)
