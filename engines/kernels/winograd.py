"""Winograd's (Toom and Cook's) form of a convolution: its tiles, the points that they are taken at, and its weights.

A tile of `outputs` frames under a filter of `taps` is the middle of a product of polynomials, known from its values at
outputs + taps - 1 points: so many products in place of outputs x taps. More frames a tile save more and cost
precision; eleven points in pairs +-p stay at 7e-6 of a convolution's output in float32, where its definition is at 2e-7
(tests/engines/kernels). Longer filters are cut into groups of taps; then a tile is as long as a group, and all
groups share the tiles' transforms. Source: Lavin and Gray, https://arxiv.org/abs/1509.09308. Numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

PAIRS = (1.0, 0.5, 2.0, 0.7, 1.5)  # found by trying: of the sets tried, the one with the smallest error
_SQUARES = np.square(PAIRS)
_ALL_POINTS = np.array([0.0, *(sign * point for point in PAIRS for sign in (1, -1))])
POINTS = len(_ALL_POINTS)


@dataclass(frozen=True)
class Tile:
    """`outputs` frames a tile and `taps` a group; `groups` of them hold the filter, the last filled up with zeros."""

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
    """(pairs, pairs - 1): the factor that the numerators at p and -p share, x^2 - p^2 left out of the above."""
    return np.stack([_rising(np.delete(_SQUARES, pair)) for pair in range(len(PAIRS))])


def _rising(roots: F64) -> F64:
    return np.poly(roots)[:0:-1].astype(np.float64)


def weights_at_points(weight: npt.NDArray[np.float32], tile: Tile) -> npt.NDArray[np.float32]:
    """weight (out, in, taps of the filter) -> (points, groups * in, out): each group's values over the denominators."""
    wide, thin, taps = weight.shape
    filled = np.zeros((wide, thin, tile.groups * tile.taps))
    filled[..., :taps] = weight
    groups = filled.reshape(wide, thin, tile.groups, tile.taps)
    apart = _ALL_POINTS[:, None] - _ALL_POINTS
    np.fill_diagonal(apart, 1.0)
    values = np.vander(_ALL_POINTS, tile.taps, increasing=True) / apart.prod(axis=1)[:, None]
    at_points = np.tensordot(values, groups, (1, 3)).transpose(0, 3, 2, 1)  # (points, groups, in, out)
    return at_points.reshape(POINTS, tile.groups * thin, wide).astype(np.float32)
