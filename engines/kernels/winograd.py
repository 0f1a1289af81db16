"""Winograd's (Toom and Cook's) form of a convolution: its tiles, its points and its weights.

A tile of `outputs` frames under a filter of `taps` is the middle of a product of polynomials. It follows from the
product's values at outputs + taps - 1 points, which takes that many multiplications instead of outputs x taps. Larger
tiles save more and cost precision: with eleven points in pairs +-p the error is 7e-6 of the output in float32, where
the definition's is 2e-7 (tests/engines/kernels). Longer filters are cut into groups of taps; then a tile is as long as
a group, and all groups share the tiles' transforms. Source: Lavin and Gray, https://arxiv.org/abs/1509.09308. Numpy
only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

PAIRS = (1.0, 0.5, 2.0, 0.7, 1.5)  # the set with the smallest error of those tried
_SQUARES = np.square(PAIRS)
_ALL_POINTS = np.array([0.0, *(sign * point for point in PAIRS for sign in (1, -1))])
POINTS = len(_ALL_POINTS)


@dataclass(frozen=True)
class Tile:
    """`outputs` frames a tile and `taps` a group; `groups` groups hold the filter, the last padded with zeros."""

    outputs: int
    taps: int
    groups: int = 1

    def __post_init__(self) -> None:
        assert self.outputs + self.taps - 1 == POINTS
        assert self.groups == 1 or self.outputs == self.taps


TILES = {3: Tile(9, 3), 7: Tile(5, 7), 11: Tile(6, 6, groups=2)}  # by the filter's taps


def numerator_at_zero() -> F64:
    """Lagrange's numerator at 0, prod (x^2 - p^2), by rising powers of x^2 without the last, which is 1."""
    return _rising(_SQUARES)


def numerators_at_pairs() -> F64:
    """(pairs, pairs - 1): the factor that the numerators at p and -p share, `numerator_at_zero` without x^2 - p^2."""
    return np.stack([_rising(np.delete(_SQUARES, pair)) for pair in range(len(PAIRS))])


def _rising(roots: F64) -> F64:
    return np.poly(roots)[:0:-1].astype(np.float64)


def weights_at_points(weight: npt.NDArray[np.float32], tile: Tile) -> npt.NDArray[np.float32]:
    """weight (out, in, taps of the filter) -> (points, groups * in, out): each group's values over the denominators."""
    outs, ins, taps = weight.shape
    padded = np.zeros((outs, ins, tile.groups * tile.taps))
    padded[..., :taps] = weight
    groups = padded.reshape(outs, ins, tile.groups, tile.taps)
    apart = _ALL_POINTS[:, None] - _ALL_POINTS
    np.fill_diagonal(apart, 1.0)
    values = np.vander(_ALL_POINTS, tile.taps, increasing=True) / apart.prod(axis=1)[:, None]
    at_points = np.tensordot(values, groups, (1, 3)).transpose(0, 3, 2, 1)  # (points, groups, in, out)
    return at_points.reshape(POINTS, tile.groups * ins, outs).astype(np.float32)
