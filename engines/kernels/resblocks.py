"""Residual blocks on resblocks.c and resblocks_amx.c: the layout of their weights, and the calls.

The structures here must agree with those there.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import cast

import numpy as np

from engines.kernels import winograd
from engines.kernels.library import (
    F32,
    LINE_FLOATS,
    MIN_SIMD_WIDTH,
    S3GEN,
    aligned,
    best_simd_width,
    conv_pairs,
    fit_amx,
    library,
    line_behind,
    panels,
    thread_pool,
)
from engines.kernels.winograd import PAIRS, TILES, Tile

_MAX_CHANNELS = 1024
_MAX_OUTPUTS = 9
# A stripe's tiles and their products for each thread: they fit a core's L2 cache beside the weights.
_SCRATCH_FLOATS = 384 * 1024 // 4


class _Transform(ctypes.Structure):
    _fields_ = (
        ("pairs", ctypes.c_int32),
        ("outputs", ctypes.c_int32),
        ("at_zero", ctypes.c_float * len(PAIRS)),
        ("at_pair", ctypes.c_float * len(PAIRS) * len(PAIRS)),
        ("points", ctypes.c_float * len(PAIRS)),
        ("powers", ctypes.c_float * _MAX_OUTPUTS * len(PAIRS)),
    )


class _Layer(ctypes.Structure):
    _fields_ = (
        ("transform", ctypes.POINTER(_Transform)),
        *((name, ctypes.c_void_p) for name in ("alpha", "weights", "bias")),
        *((name, ctypes.c_int32) for name in ("taps", "groups", "dilation")),
    )


class _TileLayer(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("alpha", "weights", "bias")),
        *((name, ctypes.c_int32) for name in ("taps", "dilation")),
    )


@dataclass(frozen=True)
class Convolution:
    """weight (channels, channels, taps) and bias (channels,); `alpha` (channels,) of the Snake before it, None if the
    convolution before has the factor in its weights."""

    weight: F32
    bias: F32
    dilation: int
    alpha: F32 | None


@cache
def _add_block() -> Callable[..., None]:
    functions = library()
    assert functions is not None
    call = functions.mynah_add_block
    pointer, long = ctypes.c_void_p, ctypes.c_long
    call.restype = None
    call.argtypes = [
        pointer, ctypes.c_int, ctypes.POINTER(_Layer), ctypes.c_int, long, long, pointer, pointer, pointer, long,
    ]  # fmt: skip
    return cast(Callable[..., None], call)


@cache
def _amx_functions() -> tuple[Callable[..., None], Callable[..., int]]:
    """mynah_add_block_amx and mynah_add_block_amx_floats."""
    functions = library()
    assert functions is not None
    run, floats = functions.mynah_add_block_amx, functions.mynah_add_block_amx_floats
    pointer, long = ctypes.c_void_p, ctypes.c_long
    run.restype, floats.restype = None, long
    run.argtypes = [pointer, ctypes.POINTER(_TileLayer), ctypes.c_int, long, long, pointer, pointer, pointer]
    floats.argtypes = [long, long]
    return cast(Callable[..., None], run), cast(Callable[..., int], floats)


def computable(channels: int, taps: int) -> bool:
    """Whether there is a block for this shape."""
    return channels % MIN_SIMD_WIDTH == 0 and channels <= _MAX_CHANNELS and taps in TILES


class Block:
    """One residual block. Raises ValueError for a shape that is not `computable`, or without a library."""

    def __init__(self, layers: Sequence[Convolution], threads: int, simd_width: int | None = None) -> None:
        """`layers` come in pairs; the first of each has its alpha.

        simd_width: one of `simd_widths`; by default AMX, or the best that divides the channels
        """
        channels, _, taps = layers[0].weight.shape
        best = simd_width or best_simd_width(channels)
        if best is None or not computable(channels, taps):
            raise ValueError(f"no compiled residual blocks for {channels} channels and {taps} taps")
        self._simd_width, self._threads, self._channels = best, threads, channels
        self._amx = simd_width is None and fit_amx(channels)
        self._pairs = len(layers) // 2
        self._transform = _transform(TILES[taps])
        self._kept: list[F32] = []  # what the structures point to
        self._layers: ctypes.Array[_TileLayer] | ctypes.Array[_Layer] = (
            (_TileLayer * len(layers))(*(self._tile_layer(layer) for layer in layers))
            if self._amx
            else (_Layer * len(layers))(*(self._layer(layer, TILES[taps]) for layer in layers))
        )

    def add(self, x: int, total: int, work: int, frames: int) -> None:
        """total += the block of x. Addresses of floats: x and total (frames, channels), `work` of `work_floats`."""
        pool = thread_pool(self._threads, S3GEN)
        if self._amx:
            _amx_functions()[0](pool, self._layers, self._pairs, frames, self._channels, x, total, line_behind(work))
            return
        _add_block()(
            pool, self._simd_width, self._layers, self._pairs, frames, self._channels, x, total, work, _SCRATCH_FLOATS
        )

    def work_floats(self, frames: int) -> int:
        """The floats of `work` that `add` needs."""
        if self._amx:
            return LINE_FLOATS + _amx_functions()[1](frames, self._channels)
        return 3 * frames * self._channels + self._threads * _SCRATCH_FLOATS

    def _tile_layer(self, layer: Convolution) -> _TileLayer:
        return _TileLayer(
            alpha=None if layer.alpha is None else self._keep(layer.alpha),
            weights=self._keep(conv_pairs(layer.weight)),
            bias=self._keep(layer.bias),
            taps=layer.weight.shape[2],
            dilation=layer.dilation,
        )

    def _layer(self, layer: Convolution, tile: Tile) -> _Layer:
        weights = panels(winograd.weights_at_points(layer.weight, tile), self._simd_width)
        return _Layer(
            transform=ctypes.pointer(self._transform),
            alpha=None if layer.alpha is None else self._keep(layer.alpha),
            weights=self._keep(weights),
            bias=self._keep(layer.bias),
            taps=layer.weight.shape[2],
            groups=tile.groups,
            dilation=layer.dilation,
        )

    def _keep(self, array: F32) -> int:
        self._kept.append(aligned(array))
        return self._kept[-1].ctypes.data


def _transform(tile: Tile) -> _Transform:
    made = _Transform(pairs=len(PAIRS), outputs=tile.outputs)
    made.at_zero[:] = winograd.numerator_at_zero().tolist()
    made.points[:] = PAIRS
    for pair, numerator in enumerate(winograd.numerators_at_pairs()):
        made.at_pair[pair][: len(numerator)] = numerator.tolist()
        made.powers[pair][: tile.outputs] = (PAIRS[pair] ** np.arange(tile.outputs)).tolist()
    return made
