"""Transformer blocks on transformer.c: the layout of their weights, and the call.

The structures here must agree with transformer.c.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import cast

import numpy as np

from engines.kernels.library import F32, MIN_SIMD_WIDTH, S3GEN, best_simd_width, library, panels, thread_pool

_HIDDEN_AT_ONCE = 256  # hidden channels whose weights lie together
_LOG2_E = math.log2(math.e)  # with scores scaled by this a softmax can use 2^x in the place of e^x


class _Dimensions(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int32) for name in ("channels", "heads", "head_width", "hidden"))


class _Layer(ctypes.Structure):
    _fields_ = tuple(
        (part + kind, ctypes.c_void_p) for part in ("qkv", "out_proj", "fc1", "fc2") for kind in ("", "_bias")
    )


class _Past(ctypes.Structure):
    _fields_ = (("rows", ctypes.c_void_p), ("count", ctypes.c_int64), ("layer_floats", ctypes.c_int64))


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


def computable(channels: int, heads: int, width: int, hidden: int) -> bool:
    """Whether there are blocks of these dimensions; `width` is that of all heads."""
    return width % heads == 0 and all(one % MIN_SIMD_WIDTH == 0 for one in (channels, width // heads, hidden))


class Stack:
    """Some blocks in sequence. Raises ValueError for a shape that is not `computable`, or without a library."""

    def __init__(self, blocks: Sequence[Transformer], heads: int, threads: int, simd_width: int | None = None) -> None:
        """`simd_width`: one of `simd_widths`, by default the best that divides all channels."""
        width, channels = blocks[0].query.weight.shape
        hidden = len(blocks[0].fc1.bias)
        best = simd_width or best_simd_width(channels, width // heads, hidden)
        if best is None or not computable(channels, heads, width, hidden):
            raise ValueError(f"no compiled transformer blocks of {channels} channels and {heads} heads")
        self._simd_width, self._threads = best, threads
        self._dimensions = _Dimensions(channels, heads, width // heads, hidden)
        self._kept: list[F32] = []  # what the structures point to
        self._layers = (_Layer * len(blocks))(*(self._layer(block, (width // heads) ** -0.5) for block in blocks))

    def __len__(self) -> int:
        return len(self._layers)

    def work_floats(self, frames: int, past: int = 0) -> int:
        """The floats of `work` that `run` needs for `frames` frames behind `past` cached ones."""
        floats: int = _functions()[1](ctypes.byref(self._dimensions), frames, past, self._threads)
        return floats

    def run(self, x: int, frames: int, work: int, past: Sequence[KVRows] = (), own: KVRows | None = None) -> None:
        """Compute in place. The frames attend to each other and to the cached keys and values of `past`.

        x: address of (frames, channels), which the result replaces
        work: address of `work_floats` floats
        own: where the frames' own keys and values are written
        """
        pasts = (_Past * len(past))(*(_Past(rows.address, rows.frames, rows.layer_floats) for rows in past))
        own_address, layer_floats = (None, 0) if own is None else (own.address, own.layer_floats)
        _functions()[0](
            thread_pool(self._threads, S3GEN), self._simd_width, ctypes.byref(self._dimensions),
            self._layers, len(self._layers), pasts, len(pasts), x, frames, own_address, layer_floats, work,
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
            *self._dense(*fc2, _HIDDEN_AT_ONCE),
        )

    def _dense(self, weight: F32, bias: F32, depth: int) -> tuple[int, int]:
        """Addresses of the weights, in blocks of `depth` rows and in panels within each, and of the bias."""
        pieces = [panels(weight[start : start + depth], self._simd_width) for start in range(0, len(weight), depth)]
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
