"""Residual blocks as resblocks.c computes them: their weights laid out for it, the threads it runs on, and the call.

Knows the compiled library's functions and structures, which must agree with resblocks.c; knows no vocoder.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import cast

import numpy as np

from engines.kernels import winograd
from engines.kernels.library import F32, LEAST_LANES, S3GEN, lanes_for, library, panels, team
from engines.kernels.winograd import PAIRS, TILES, Tile

_MOST_CHANNELS = 1024
_MOST_OUTPUTS = 9
# A stripe's tiles and their products for each thread: what a core's second cache holds beside the weights passing by.
_SCRATCH_FLOATS = 384 * 1024 // 4


class _Transform(ctypes.Structure):
    _fields_ = (
        ("pairs", ctypes.c_int32),
        ("outputs", ctypes.c_int32),
        ("at_zero", ctypes.c_float * len(PAIRS)),
        ("at_pair", ctypes.c_float * len(PAIRS) * len(PAIRS)),
        ("points", ctypes.c_float * len(PAIRS)),
        ("powers", ctypes.c_float * _MOST_OUTPUTS * len(PAIRS)),
    )


class _Layer(ctypes.Structure):
    _fields_ = (
        ("transform", ctypes.POINTER(_Transform)),
        *((name, ctypes.c_void_p) for name in ("alpha", "weights", "bias")),
        *((name, ctypes.c_int32) for name in ("taps", "groups", "dilation")),
    )


@dataclass(frozen=True)
class Convolution:
    """weight (channels, channels, taps) and bias (channels,); `alpha` (channels,) of the Snake before it, None where
    the convolution before already carries the factor."""

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


def computable(channels: int, taps: int) -> bool:
    """Whether there is a block for this shape."""
    return channels % LEAST_LANES == 0 and channels <= _MOST_CHANNELS and taps in TILES


class Block:
    """One residual block. Raises ValueError for a shape that is not `computable` and where there is no library."""

    def __init__(self, layers: Sequence[Convolution], threads: int, lanes: int | None = None) -> None:
        """`layers` come in pairs; the first of each has its alpha. `lanes`: one of `lanes_here`, by default the best
        that the channels can be divided by."""
        channels, _, taps = layers[0].weight.shape
        lanes = lanes or lanes_for(channels)
        if lanes is None or not computable(channels, taps):
            raise ValueError(f"no compiled residual blocks for {channels} channels and {taps} taps")
        self._lanes, self._threads, self._channels = lanes, threads, channels
        self._pairs = len(layers) // 2
        self._transform = _transform(TILES[taps])
        self._kept: list[F32] = []  # what the structures point to
        self._layers = (_Layer * len(layers))(*(self._layer(layer, TILES[taps]) for layer in layers))

    def add(self, x: int, total: int, work: int, frames: int) -> None:
        """total += the block of x. Addresses of floats: x and total (frames, channels), `work` of `work_floats`."""
        threads = team(self._threads, S3GEN)
        _add_block()(
            threads, self._lanes, self._layers, self._pairs, frames, self._channels, x, total, work, _SCRATCH_FLOATS
        )

    def work_floats(self, frames: int) -> int:
        """How many floats `add` writes over besides its result."""
        return 3 * frames * self._channels + self._threads * _SCRATCH_FLOATS

    def _layer(self, layer: Convolution, tile: Tile) -> _Layer:
        weights = panels(winograd.weights_at_points(layer.weight, tile), self._lanes)
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
        self._kept.append(np.array(array, np.float32, order="C"))
        return self._kept[-1].ctypes.data


def _transform(tile: Tile) -> _Transform:
    made = _Transform(pairs=len(PAIRS), outputs=tile.outputs)
    made.at_zero[:] = winograd.numerator_at_zero().tolist()
    made.points[:] = PAIRS
    for pair, numerator in enumerate(winograd.numerators_at_pairs()):
        made.at_pair[pair][: len(numerator)] = numerator.tolist()
        made.powers[pair][: tile.outputs] = (PAIRS[pair] ** np.arange(tile.outputs)).tolist()
    return made
