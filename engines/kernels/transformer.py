"""Transformer blocks on transformer.c and transformer_amx.c: the layout of their weights, and the calls.

The structures here must agree with those there.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import cast

import numpy as np

from engines.kernels.library import (
    F32,
    LINE_FLOATS,
    MIN_SIMD_WIDTH,
    S3GEN,
    aligned,
    best_simd_width,
    fit_amx,
    library,
    line_behind,
    panels,
    thread_pool,
    tile_pairs,
)

_HIDDEN_AT_ONCE = 256  # hidden channels whose weights lie together, without AMX
_BLOCK_ROWS = 16  # of tiles
_LOG2_E = math.log2(math.e)  # with scores scaled by this a softmax can use 2^x in the place of e^x


class _Dimensions(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int32) for name in ("channels", "heads", "head_width", "hidden"))


class _Layer(ctypes.Structure):
    _fields_ = tuple(
        (part + kind, ctypes.c_void_p) for part in ("qkv", "out_proj", "fc1", "fc2") for kind in ("", "_bias")
    )


class _Past(ctypes.Structure):
    _fields_ = (("rows", ctypes.c_void_p), ("count", ctypes.c_int64), ("layer_floats", ctypes.c_int64))


class _Row(ctypes.Structure):
    _fields_ = (
        ("pasts", ctypes.c_void_p),
        ("past_count", ctypes.c_int64),
        ("frames", ctypes.c_int64),
        ("x", ctypes.c_void_p),
        ("own_kv", ctypes.c_void_p),
        ("own_layer_floats", ctypes.c_int64),
    )


@dataclass(frozen=True)
class Dense:
    """weight (out, in) and bias (out,)"""

    weight: F32
    bias: F32

    def folded(self, norm: Dense | None, scale: float = 1.0) -> tuple[F32, F32]:
        """Weights (in, out) and bias, times `scale`, with the factors and offsets (in,) of the norm before them."""
        weight, bias = self.weight.astype(np.float64), self.bias.astype(np.float64)
        if norm is not None:
            bias = bias + weight @ norm.bias
            weight = weight * norm.weight
        return (weight.T * scale).astype(np.float32), (bias * scale).astype(np.float32)


@dataclass(frozen=True)
class Transformer:
    """x + out_proj(attention of norm1(x)), then x + fc2(GELU(fc1(norm2(x)))). Norms are Dense of (channels,) each."""

    norm1: Dense
    query: Dense
    key: Dense
    value: Dense
    out_proj: Dense
    norm2: Dense
    fc1: Dense
    fc2: Dense


@dataclass(frozen=True)
class KVRows:
    """Keys and values of some frames, for each layer (frames, 2, heads * head width).

    address: of the first layer's
    layer_floats: the distance between layers in floats
    """

    address: int
    frames: int
    layer_floats: int


@dataclass(frozen=True)
class Row:
    """A row of a batch. Its frames attend to each other and to the cached keys and values of `past`.

    x: address of (frames, channels), which the result replaces
    own: where the frames' own keys and values are written
    """

    x: int
    frames: int
    past: Sequence[KVRows] = ()
    own: KVRows | None = None

    @property
    def past_frames(self) -> int:
        return sum(part.frames for part in self.past)


def computable(channels: int, heads: int, width: int, hidden: int) -> bool:
    """Whether there are blocks of these dimensions; `width` is that of all heads."""
    return width % heads == 0 and all(one % MIN_SIMD_WIDTH == 0 for one in (channels, width // heads, hidden))


class Stack:
    """Some blocks in sequence. Raises ValueError for a shape that is not `computable`, or without a library."""

    def __init__(
        self,
        blocks: Sequence[Transformer],
        heads: int,
        threads: int,
        simd_width: int | None = None,
    ) -> None:
        """simd_width: one of `simd_widths`; by default AMX, or the best that divides all channels"""
        width, channels = blocks[0].query.weight.shape
        hidden = len(blocks[0].fc1.bias)
        best = simd_width or best_simd_width(channels, width // heads, hidden)
        if best is None or not computable(channels, heads, width, hidden):
            raise ValueError(f"no compiled transformer blocks of {channels} channels and {heads} heads")
        self._simd_width, self._threads = best, threads
        self._amx = simd_width is None and fit_amx(channels, width // heads, hidden)
        self._dimensions = _Dimensions(channels, heads, width // heads, hidden)
        self._kept: list[F32] = []  # what the structures point to
        self._layers = (_Layer * len(blocks))(*(self._layer(block, (width // heads) ** -0.5) for block in blocks))

    def __len__(self) -> int:
        return len(self._layers)

    def work_floats(self, rows: Sequence[Row]) -> int:
        """The floats of `work` that `run` needs."""
        dimensions = ctypes.byref(self._dimensions)
        if not self._amx:
            return max(_functions()[1](dimensions, row.frames, row.past_frames, self._threads) for row in rows)
        blocks = sum(-(-row.frames // _BLOCK_ROWS) for row in rows)
        return LINE_FLOATS + _amx_functions()[1](dimensions, blocks, len(rows), self._threads)

    def run(self, rows: Sequence[Row], work: int) -> None:
        """Compute all rows in place. `work`: address of `work_floats` floats."""
        pool, dimensions = thread_pool(self._threads, S3GEN), ctypes.byref(self._dimensions)
        pasts = [
            (_Past * len(row.past))(*(_Past(p.address, p.frames, p.layer_floats) for p in row.past)) for row in rows
        ]
        own = [(None, 0) if row.own is None else (row.own.address, row.own.layer_floats) for row in rows]
        if self._amx:
            every = (
                _Row(ctypes.cast(past, ctypes.c_void_p), len(past), row.frames, row.x, *own_kv)
                for row, past, own_kv in zip(rows, pasts, own, strict=True)
            )
            _amx_functions()[0](
                pool,
                dimensions,
                self._layers,
                len(self._layers),
                (_Row * len(rows))(*every),
                len(rows),
                line_behind(work),
            )
            return
        for row, past, own_kv in zip(rows, pasts, own, strict=True):
            _functions()[0](
                pool, self._simd_width, dimensions, self._layers, len(self._layers), past, len(past), row.x, row.frames,
                *own_kv, work,
            )  # fmt: skip

    def _layer(self, block: Transformer, scale: float) -> _Layer:
        query, key, value = (
            dense.folded(block.norm1, by)
            for dense, by in ((block.query, scale * _LOG2_E), (block.key, 1.0), (block.value, 1.0))
        )
        qkv = tuple(np.concatenate(parts, axis=-1) for parts in zip(query, key, value, strict=True))
        out_proj, fc1, fc2 = block.out_proj.folded(None), block.fc1.folded(block.norm2), block.fc2.folded(None)
        return _Layer(
            *self._dense(qkv[0], qkv[1], len(qkv[0])),
            *self._dense(*out_proj, len(out_proj[0])),
            *self._dense(*fc1, len(fc1[0])),
            *self._dense(*fc2, len(fc2[0]) if self._amx else _HIDDEN_AT_ONCE),
        )

    def _dense(self, weight: F32, bias: F32, depth: int) -> tuple[int, int]:
        """Addresses of the weights, in blocks of `depth` rows and in panels within each, and of the bias."""
        parts = [weight[start : start + depth] for start in range(0, len(weight), depth)]
        laid_out = [tile_pairs(part) if self._amx else panels(part, self._simd_width) for part in parts]
        return self._keep(np.concatenate(laid_out)), self._keep(bias)

    def _keep(self, array: F32) -> int:
        self._kept.append(aligned(array))
        return self._kept[-1].ctypes.data


def _pasts(parts: Sequence[KVRows]) -> ctypes.Array[_Past]:
    return (_Past * len(parts))(*(_Past(part.address, part.frames, part.layer_floats) for part in parts))


@cache
def _functions() -> tuple[Callable[..., None], Callable[..., int]]:
    """mynah_transform and mynah_transform_floats."""
    functions = library()
    assert functions is not None
    pointer, long, integer = ctypes.c_void_p, ctypes.c_long, ctypes.c_int
    run, floats = functions.mynah_transform, functions.mynah_transform_floats
    run.restype, floats.restype = None, long
    run.argtypes = [
        pointer, integer, ctypes.POINTER(_Dimensions), ctypes.POINTER(_Layer), long, ctypes.POINTER(_Past), long,
        pointer, long, pointer, long, pointer,
    ]  # fmt: skip
    floats.argtypes = [ctypes.POINTER(_Dimensions), long, long, integer]
    return cast(Callable[..., None], run), cast(Callable[..., int], floats)


@cache
def _amx_functions() -> tuple[Callable[..., None], Callable[..., int]]:
    """mynah_transform_amx and mynah_transform_amx_floats."""
    functions = library()
    assert functions is not None
    pointer, long = ctypes.c_void_p, ctypes.c_long
    run, floats = functions.mynah_transform_amx, functions.mynah_transform_amx_floats
    run.restype, floats.restype = None, long
    run.argtypes = [
        pointer, ctypes.POINTER(_Dimensions), ctypes.POINTER(_Layer), long, ctypes.POINTER(_Row), long, pointer,
    ]  # fmt: skip
    floats.argtypes = [ctypes.POINTER(_Dimensions), long, long, ctypes.c_int]
    return cast(Callable[..., None], run), cast(Callable[..., int], floats)
