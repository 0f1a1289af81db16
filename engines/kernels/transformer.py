"""Transformer blocks as transformer.c computes them: their weights laid out for it, and the call.

Knows the compiled library's functions and structures, which must agree with transformer.c; knows no flow.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import cast

import numpy as np

from engines.kernels.library import F32, LEAST_LANES, S3GEN, lanes_for, library, panels, team

_WIDE_AT_ONCE = 256  # hidden channels whose weights lie together
_BINARY = math.log2(math.e)  # a softmax of powers of two is one of powers of e of scores so much smaller


class _Dimensions(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int32) for name in ("channels", "heads", "head_width", "hidden"))


class _Layer(ctypes.Structure):
    _fields_ = tuple(
        (part + kind, ctypes.c_void_p) for part in ("project", "join", "widen", "narrow") for kind in ("", "_bias")
    )


class _Past(ctypes.Structure):
    _fields_ = (("rows", ctypes.c_void_p), ("count", ctypes.c_int64), ("layer_floats", ctypes.c_int64))


@dataclass(frozen=True)
class Dense:
    """weight (out, in) and bias (out,)"""

    weight: F32
    bias: F32

    def behind(self, norm: Dense | None, scale: float = 1.0) -> tuple[F32, F32]:
        """Weights (in, out) and bias, times `scale`; of what is only normalised, when they stand behind a norm, whose
        `weight` and `bias` are (in,)."""
        weight, bias = self.weight.astype(np.float64), self.bias.astype(np.float64)
        if norm is not None:
            bias = bias + weight @ norm.bias
            weight = weight * norm.weight
        return (weight.T * scale).astype(np.float32), (bias * scale).astype(np.float32)


@dataclass(frozen=True)
class Transformer:
    """x + join(attention of norm1(x)), then x + narrow(GELU(widen(norm2(x)))). Norms are Dense of (channels,) each."""

    norm1: Dense
    query: Dense
    key: Dense
    value: Dense
    join: Dense
    norm2: Dense
    widen: Dense
    narrow: Dense


@dataclass(frozen=True)
class Rows:
    """Keys and values of some frames, for each layer (frames, 2, heads * head width): where the first layer's lie, how
    many frames, and how many floats on the next layer's lie."""

    address: int
    frames: int
    layer_floats: int


def computable(channels: int, heads: int, width: int, hidden: int) -> bool:
    """Whether there are blocks of these dimensions; `width` is that of all heads."""
    return width % heads == 0 and all(one % LEAST_LANES == 0 for one in (channels, width // heads, hidden))


class Stack:
    """Some blocks, one after the other. Raises ValueError for what is not `computable`, or without a library."""

    def __init__(self, blocks: Sequence[Transformer], heads: int, threads: int, lanes: int | None = None) -> None:
        """`lanes`: one of `lanes_here`, by default the best whose vectors all channels fill."""
        width, channels = blocks[0].query.weight.shape
        hidden = len(blocks[0].widen.bias)
        best = lanes or lanes_for(channels, width // heads, hidden)
        if best is None or not computable(channels, heads, width, hidden):
            raise ValueError(f"no compiled transformer blocks of {channels} channels and {heads} heads")
        self._lanes, self._threads = best, threads
        self._dimensions = _Dimensions(channels, heads, width // heads, hidden)
        self._kept: list[F32] = []  # what the structures point to
        self._layers = (_Layer * len(blocks))(*(self._layer(block, (width // heads) ** -0.5) for block in blocks))

    def __len__(self) -> int:
        return len(self._layers)

    def work_floats(self, frames: int, remembered: int = 0) -> int:
        """How many floats `run` writes over besides its results."""
        floats: int = _functions()[1](ctypes.byref(self._dimensions), frames, remembered, self._threads)
        return floats

    def run(self, x: int, frames: int, work: int, remembered: Sequence[Rows] = (), own: Rows | None = None) -> None:
        """x: the address of (frames, channels), which the result replaces; work: of `work_floats`. The frames attend
        to each other and to what is `remembered`; their own keys and values are written to `own`."""
        pasts = (_Past * len(remembered))(*(_Past(one.address, one.frames, one.layer_floats) for one in remembered))
        kept, layer_floats = (None, 0) if own is None else (own.address, own.layer_floats)
        _functions()[0](
            team(self._threads, S3GEN), self._lanes, ctypes.byref(self._dimensions), self._layers, len(self._layers),
            pasts, len(pasts), x, frames, kept, layer_floats, work,
        )  # fmt: skip

    def _layer(self, block: Transformer, scale: float) -> _Layer:
        query, key, value = (
            dense.behind(block.norm1, by)
            for dense, by in ((block.query, scale * _BINARY), (block.key, 1.0), (block.value, 1.0))
        )
        project = tuple(np.concatenate(both, axis=-1) for both in zip(query, key, value, strict=True))
        join, widen, narrow = block.join.behind(None), block.widen.behind(block.norm2), block.narrow.behind(None)
        return _Layer(
            *self._dense(project[0], project[1], len(project[0])),
            *self._dense(*join, len(join[0])),
            *self._dense(*widen, len(widen[0])),
            *self._dense(*narrow, _WIDE_AT_ONCE),
        )

    def _dense(self, weight: F32, bias: F32, depth: int) -> tuple[int, int]:
        """Addresses of the weights in panels, `depth` of their rows after the other, and of the bias."""
        pieces = [panels(weight[start : start + depth], self._lanes) for start in range(0, len(weight), depth)]
        return self._keep(np.concatenate(pieces)), self._keep(bias)

    def _keep(self, array: F32) -> int:
        self._kept.append(np.ascontiguousarray(array, np.float32))
        return self._kept[-1].ctypes.data


@cache
def _functions() -> tuple[Callable[..., None], Callable[..., int]]:
    """mynah_transform and mynah_transform_floats."""
    functions = library()
    assert functions is not None
    pointer, long = ctypes.c_void_p, ctypes.c_long
    run, floats = functions.mynah_transform, functions.mynah_transform_floats
    run.restype, floats.restype = None, long
    run.argtypes = [
        pointer, ctypes.c_int, ctypes.POINTER(_Dimensions), ctypes.POINTER(_Layer), long, ctypes.POINTER(_Past), long,
        pointer, long, pointer, long, pointer,
    ]  # fmt: skip
    floats.argtypes = [ctypes.POINTER(_Dimensions), long, long, ctypes.c_int]
    return cast(Callable[..., None], run), cast(Callable[..., int], floats)
