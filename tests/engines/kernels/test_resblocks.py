"""The compiled residual blocks compute what torch's do: every shape, instruction set and number of threads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engines.kernels import resblocks, winograd
from engines.kernels.library import amx_supported, simd_widths, tile_pairs
from engines.s3gen.nets.compiled_vocoder import compiled
from engines.s3gen.nets.vocoder import KERNELS, ResBlock

SIMD_WIDTHS = simd_widths()
on_amx = pytest.mark.skipif(not amx_supported(), reason="this machine has no AMX")


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def block(channels: int, taps: int, seed: int = 0) -> ResBlock:
    """Weights of the size that trained ones have: a convolution keeps the level of what it is given."""
    draw = torch.Generator().manual_seed(seed)
    made = ResBlock(channels, taps).requires_grad_(False)
    for i in range(len(made.convs1)):
        for conv in (made.convs1[i], made.convs2[i]):
            conv.weight.normal_(0.0, (channels * taps) ** -0.5, generator=draw)
            conv.bias.normal_(0.0, 0.3, generator=draw)
        made.activations1[i].alpha.normal_(1.0, 0.3, generator=draw)
    return made


def added(made: resblocks.Block, x: Tensor, total: Tensor) -> Tensor:
    """x, total (T, C)"""
    result, work = total.clone(), torch.full((made.work_floats(len(x)),), torch.nan)
    made.add(x.data_ptr(), result.data_ptr(), work.data_ptr(), len(x))
    return result


def error(got: Tensor, expected: Tensor) -> float:
    """Of the level, at the worst sample."""
    return float((got - expected).abs().max() / expected.std())


def test_the_installation_has_them() -> None:
    """Wherever the tests run there is a compiler, so that none of the following is skipped unseen."""
    assert SIMD_WIDTHS


@pytest.mark.parametrize("simd_width", SIMD_WIDTHS)
@pytest.mark.parametrize("taps", KERNELS)
@settings(max_examples=12, deadline=None)
@given(frames=st.integers(1, 200), groups=st.integers(1, 5), threads=st.integers(1, 3), seed=st.integers(0, 99))
def test_a_block_is_torchs(simd_width: int, taps: int, frames: int, groups: int, threads: int, seed: int) -> None:
    reference = block(groups * simd_width, taps, seed)
    x = torch.randn(frames, groups * simd_width, generator=torch.Generator().manual_seed(seed))
    total = torch.randn(frames, groups * simd_width)
    got = added(compiled(reference, threads, simd_width), x, total)
    expected = total + reference(x.T[None].contiguous(), None)[0].T
    assert (got - expected).abs().max() < 2e-4 * max(1.0, float(expected.abs().max()))


@on_amx
@pytest.mark.parametrize("taps", KERNELS)
@settings(max_examples=12, deadline=None)
@given(frames=st.integers(1, 400), groups=st.integers(1, 5), threads=st.integers(1, 3), seed=st.integers(0, 99))
def test_on_amx_a_block_is_torchs(taps: int, frames: int, groups: int, threads: int, seed: int) -> None:
    reference = block(groups * 32, taps, seed)
    x = torch.randn(frames, groups * 32, generator=torch.Generator().manual_seed(seed))
    total = torch.randn(frames, groups * 32)
    got = added(compiled(reference, threads), x, total)
    expected = total + reference(x.T[None].contiguous(), None)[0].T
    assert (got - expected).abs().max() < 2e-4 * max(1.0, float(expected.abs().max()))


@on_amx
def test_on_amx_nan_is_not_hidden_and_spoils_no_frame_out_of_reach() -> None:
    made, x = compiled(block(32, 3), 2), torch.randn(400, 32, generator=torch.Generator().manual_seed(5))
    healthy = added(made, x, torch.zeros_like(x))
    x[350, 3] = torch.nan
    got = added(made, x, torch.zeros_like(x))
    assert got[350].isnan().all()
    assert torch.equal(got[:300], healthy[:300])


def test_pairs_of_tiles_hold_a_weight_to_2_to_the_minus_17() -> None:
    """By their definition: (panel, 32 steps, half of its columns, part, row of two steps, column, step)."""
    weight = np.random.default_rng(0).standard_normal((64, 96)).astype(np.float32)
    halves = tile_pairs(weight).view(np.uint16).reshape(3, 2, 2, 2, 16, 16, 2).astype(np.uint32)
    upper, lower = np.moveaxis((halves << 16).view(np.float32), 3, 0)
    for part, bound in ((upper, 2.0**-8), (upper + lower, 2.0**-17)):
        found = part.transpose(1, 3, 5, 0, 2, 4).reshape(64, 96)
        assert (np.abs(found - weight) <= bound * np.abs(weight)).all()


@pytest.mark.parametrize(("channels", "frames"), [(256, 560), (64, 6600)])
@pytest.mark.parametrize("taps", KERNELS)
def test_full_size_in_several_stripes(channels: int, frames: int, taps: int) -> None:
    reference = block(channels, taps)
    x = torch.randn(frames, channels, generator=torch.Generator().manual_seed(1))
    expected = reference(x.T[None].contiguous(), None)[0].T
    first, second = (added(compiled(reference, threads), x, torch.zeros_like(x)) for threads in (1, 2))
    assert error(first, expected) < 3e-4
    assert torch.equal(first, second), "results do not depend on the number of threads"


def test_precision_of_one_convolution() -> None:
    """What winograd.py says of its points, on its own definition: numpy, float32."""
    draw = np.random.default_rng(0)
    weight = (draw.standard_normal((64, 64, 11)) / np.sqrt(64 * 11)).astype(np.float32)
    x = draw.standard_normal((64, 6 * 40 + 10)).astype(np.float32)
    exact = F.conv1d(torch.tensor(x, dtype=torch.float64)[None], torch.tensor(weight, dtype=torch.float64))[0].numpy()
    got = _by_definition(x, weight, winograd.TILES[11])
    assert np.sqrt(np.mean((got - exact) ** 2)) < 1.2e-5 * exact.std()


def _by_definition(x: np.ndarray, weight: np.ndarray, tile: winograd.Tile) -> np.ndarray:
    """x (C, n + taps - 1) -> (C, n): tile by tile, group by group, in float32."""
    points = np.array([0.0, *(s * p for p in winograd.PAIRS for s in (1, -1))])
    numerators = np.stack([np.poly(np.delete(points, i))[::-1] for i in range(len(points))]).astype(np.float32)
    powers = np.vander(points, tile.outputs, increasing=True).T.astype(np.float32)
    weights = winograd.weights_at_points(weight, tile).reshape(len(points), tile.groups, *weight.shape[1::-1])
    padded = np.pad(x, ((0, 0), (0, tile.groups * tile.taps - weight.shape[2])))
    out = []
    for start in range(0, x.shape[1] - weight.shape[2] + 1, tile.outputs):
        products = np.zeros((len(points), weight.shape[0]), np.float32)
        for group in range(tile.groups):
            piece = padded[:, start + group * tile.taps :][:, : len(points)]
            products += np.einsum("pi,pio->po", numerators @ piece.T, weights[:, group])
        out.append((powers @ products).T)
    return np.concatenate(out, axis=1)


@pytest.mark.parametrize("simd_width", SIMD_WIDTHS)
def test_snakes_of_any_size(simd_width: int) -> None:
    """With weights that pass nothing on, a block is x; with one tap, Snakes alone: exact for speech, finite for all."""
    reference = block(simd_width, 3)
    for conv in (*reference.convs1, *reference.convs2):
        conv.weight.zero_()
        conv.bias.zero_()
    reference.convs1[2].weight[range(simd_width), range(simd_width), 1] = 1.0
    reference.convs2[2].weight[range(simd_width), range(simd_width), 1] = 1.0
    reference.activations1[2].alpha.fill_(1.0)
    x = torch.linspace(-300.0, 300.0, 500 * simd_width).reshape(500, simd_width)
    made = compiled(reference, 1, simd_width)
    expected = reference(x.T[None].contiguous(), None)[0].T
    assert (added(made, x, torch.zeros_like(x)) - expected).abs().max() < 3e-2  # tiles mix rows of up to 900
    huge = x * 1e12
    assert torch.isfinite(added(made, huge, torch.zeros_like(x))).all()
    huge[3, 0] = torch.nan
    assert torch.isnan(added(made, huge, torch.zeros_like(x))).any(), "NaN must not be hidden"


@pytest.mark.parametrize(("channels", "taps"), [(6, 7), (2048, 7), (64, 5)])
def test_other_shapes_are_refused(channels: int, taps: int) -> None:
    weight = np.zeros((channels, channels, taps), np.float32)
    layer = resblocks.Convolution(weight, np.zeros(channels, np.float32), 1, None)
    assert not resblocks.computable(channels, taps)
    with pytest.raises(ValueError, match=f"{channels} channels and {taps} taps"):
        resblocks.Block([layer, layer], 1)
