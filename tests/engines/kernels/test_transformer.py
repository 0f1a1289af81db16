"""The compiled transformer blocks compute what torch's do: every shape, instruction set and number of threads.

On AMX, which not every machine has, a product's terms are exact to 2^-17, and rows of a batch share its weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engines.kernels.library import amx_supported, simd_widths
from engines.kernels.transformer import Dense, KVRows, Row, Stack, Transformer
from engines.model_spec import TINY
from engines.s3gen.nets import cfm
from engines.s3gen.nets.compiled_cfm import compiled
from engines.s3gen.nets.layers import attend

SIMD_WIDTHS = simd_widths()
# at most a value's error for outputs of about 1; rounding in float32, summed over a few hundred terms
TOLERANCE = 5e-5
AMX_TOLERANCE = 2e-4  # of products of numbers that are the sums of two bfloat16 ones
on_amx = pytest.mark.skipif(not amx_supported(), reason="this machine has no AMX")


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def blocks(channels: int, heads: int, head_width: int, count: int = 2, seed: int = 0) -> list[cfm._Transformer]:
    """Weights of the size that trained ones have; norms that are not the identity."""
    spec = replace(TINY.flow, channels=channels, cfm_heads=heads, cfm_head_dim=head_width)
    draw = torch.Generator().manual_seed(seed)
    made = [cfm._Transformer(spec).requires_grad_(False) for _ in range(count)]
    for block in made:
        for name, parameter in block.named_parameters():
            if parameter.dim() == 2:
                parameter.normal_(0.0, parameter.shape[1] ** -0.5, generator=draw)
            else:
                parameter.normal_(float("norm" in name and name.endswith("weight")), 0.3, generator=draw)
    return made


def run(made: Stack, x: Tensor, remembered: list[KVRows] | None = None, own: KVRows | None = None) -> Tensor:
    """x (T, C)"""
    result, before = x.clone(), remembered or []
    rows = [Row(result.data_ptr(), len(x), before, own)]
    work = torch.full((made.work_floats(rows),), torch.nan)
    made.run(rows, work.data_ptr())
    return result


def through(net: list[cfm._Transformer], x: Tensor) -> Tensor:
    x = x[None]
    for block in net:
        x = block(x, None)
    return x[0]


@pytest.mark.parametrize("simd_width", SIMD_WIDTHS)
@settings(max_examples=25, deadline=None)
@given(
    frames=st.integers(1, 230),
    heads=st.integers(1, 3),
    groups=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    threads=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_blocks_are_torchs(
    simd_width: int, frames: int, heads: int, groups: tuple[int, int], threads: int, seed: int
) -> None:
    channels, head_width = (simd_width * group for group in groups)
    reference = blocks(channels, heads, head_width, seed=seed)
    x = torch.randn(frames, channels, generator=torch.Generator().manual_seed(seed))
    got, expected = run(compiled(reference, threads, simd_width), x), through(reference, x)
    assert (got - expected).abs().max() < TOLERANCE * max(1.0, float(expected.abs().max()))


def test_full_size() -> None:
    reference = blocks(256, 8, 64, count=4)
    x = torch.randn(656, 256, generator=torch.Generator().manual_seed(1))
    expected = through(reference, x)
    first, second = (run(compiled(reference, threads), x) for threads in (1, 2))
    tolerance = AMX_TOLERANCE if amx_supported() else TOLERANCE
    assert (first - expected).abs().max() < tolerance * float(expected.std())
    assert (first - second).abs().max() < TOLERANCE * float(expected.std())


@pytest.mark.parametrize("simd_width", SIMD_WIDTHS)
@pytest.mark.parametrize("before", [[], [1], [37], [40, 0, 9]])
def test_cached_keys_and_values_are_attended_to_and_own_ones_written(simd_width: int, before: list[int]) -> None:
    reference, draw = blocks(32, 2, 16), torch.Generator().manual_seed(3)
    frames, width = 21, 32
    x = torch.randn(frames, 32, generator=draw)
    pieces = [torch.randn(2, count, 2 * width, generator=draw) for count in before]
    room = torch.full((2, 50, 2 * width), torch.nan)  # more than is needed
    own = room[:, 5 : 5 + frames]
    got = run(compiled(reference, 2, simd_width), x, [_rows(piece) for piece in pieces], _rows(own))
    expected, kept = _remembering(reference, x, pieces)
    assert (got - expected).abs().max() < TOLERANCE * max(1.0, float(expected.abs().max()))
    assert (own - kept).abs().max() < TOLERANCE * float(kept.abs().max())
    assert room[:, :5].isnan().all()
    assert room[:, 5 + frames :].isnan().all()


@on_amx
@settings(max_examples=40, deadline=None)
@given(
    frames=st.lists(st.integers(1, 150), min_size=1, max_size=4),
    before=st.lists(st.integers(0, 300), max_size=3),
    heads=st.integers(1, 3),
    groups=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    threads=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_on_amx_each_row_of_a_batch_is_torchs(
    frames: list[int], before: list[int], heads: int, groups: tuple[int, int], threads: int, seed: int
) -> None:
    """Rows of any length behind what is cached of each, and the first the same to the bit alone."""
    channels, head_width = (32 * group for group in groups)
    reference, draw = blocks(channels, heads, head_width, seed=seed), torch.Generator().manual_seed(seed)
    made, width = compiled(reference, threads), heads * head_width
    inputs = [torch.randn(count, channels, generator=draw) for count in frames]
    pieces = [[torch.randn(2, count, 2 * width, generator=draw) for count in before[i:]] for i in range(len(frames))]
    outputs, own = [x.clone() for x in inputs], [torch.full((2, len(x), 2 * width), torch.nan) for x in inputs]
    rows = [
        Row(x.data_ptr(), len(x), [_rows(piece) for piece in past if piece.shape[1]], _rows(kept))
        for x, past, kept in zip(outputs, pieces, own, strict=True)
    ]
    work = torch.full((made.work_floats(rows),), torch.nan)
    made.run(rows, work.data_ptr())
    for x, past, got, kept in zip(inputs, pieces, outputs, own, strict=True):
        expected, expected_kept = _remembering(reference, x, past)
        assert (got - expected).abs().max() < AMX_TOLERANCE * max(1.0, float(expected.abs().max()))
        assert (kept - expected_kept).abs().max() < AMX_TOLERANCE * float(expected_kept.abs().max())
    alone = run(made, inputs[0], [_rows(piece) for piece in pieces[0] if piece.shape[1]])
    assert torch.equal(alone, outputs[0])


@on_amx
def test_on_amx_nan_stays_in_its_row_of_a_batch() -> None:
    reference, draw = blocks(32, 1, 32), torch.Generator().manual_seed(4)
    made = compiled(reference, 2)
    healthy, broken = torch.randn(21, 32, generator=draw), torch.randn(37, 32, generator=draw)
    alone = run(made, healthy)
    broken[7, 0] = torch.nan
    rows = [Row(x.data_ptr(), len(x)) for x in (broken, healthy)]
    work = torch.full((made.work_floats(rows),), torch.nan)
    made.run(rows, work.data_ptr())
    assert broken.isnan().all(), "every frame attends to the broken one"
    assert torch.equal(healthy, alone)


@on_amx
def test_on_amx_scores_far_apart() -> None:
    """With loud keys the softmax takes one of them, in whichever part of the keys it lies."""
    loud = blocks(32, 1, 32, count=1)
    loud[0].attn1.to_k.weight.mul_(1e4)
    x = torch.randn(300, 32, generator=torch.Generator().manual_seed(2)) * 1e3
    expected = through(loud, x)
    assert (run(compiled(loud, 1), x) - expected).abs().max() < 1e-3 * float(expected.abs().max())


def _rows(piece: Tensor) -> KVRows:
    return KVRows(piece.data_ptr(), piece.shape[1], piece.stride(0))


def _remembering(net: list[cfm._Transformer], x: Tensor, pieces: list[Tensor]) -> tuple[Tensor, Tensor]:
    """By definition: each layer's keys and values of the pieces before its own."""
    kept = []
    for layer, block in enumerate(net):
        attention, normal = block.attn1, block.norm1(x)
        kept.append(torch.cat([attention.to_k(normal), attention.to_v(normal)], dim=-1))
        both = torch.cat([*(piece[layer] for piece in pieces), kept[-1]])
        q, k, v = (
            part.unflatten(-1, (attention.heads, -1)).transpose(0, 1)[None]
            for part in (attention.to_q(normal), *both.chunk(2, dim=-1))
        )
        mixed = attend(q, k, v, None)[0].transpose(0, 1).flatten(1)
        x = x + attention.to_out[0](mixed)
        x = x + block.ff(block.norm3(x))
    return x, torch.stack(kept)


@pytest.mark.parametrize("simd_width", SIMD_WIDTHS)
def test_gelu_of_any_size_and_scores_far_apart(simd_width: int) -> None:
    """Without attention a block is x + GELU(norm(x)); with loud keys the softmax takes one of them."""
    still = _identity(simd_width)
    x = torch.randn(40, simd_width, generator=torch.Generator().manual_seed(2)) * 1e3
    normal = torch.nn.functional.layer_norm(x, (simd_width,))
    made = Stack([still], 1, 1, simd_width)
    wide = still.fc1.weight @ normal.T.numpy()
    expected = x + torch.nn.functional.gelu(torch.from_numpy(wide.astype(np.float32)))[:simd_width].T
    assert (run(made, x) - expected).abs().max() < 1e-3  # of values of up to 40 beside x of 3000
    loud = blocks(simd_width, 1, simd_width, count=1)
    loud[0].attn1.to_k.weight.mul_(1e4)
    expected = through(loud, x)
    assert (run(compiled(loud, 1, simd_width), x) - expected).abs().max() < 1e-3 * float(expected.abs().max())


def _identity(width: int) -> Transformer:
    nothing = Dense(np.zeros((width, width), np.float32), np.zeros(width, np.float32))
    norm = Dense(np.ones(width, np.float32), np.zeros(width, np.float32))
    loud = Dense(10 * np.eye(4 * width, width, dtype=np.float32), np.zeros(4 * width, np.float32))
    first = Dense(np.eye(width, 4 * width, dtype=np.float32), np.zeros(width, np.float32))
    return Transformer(norm, nothing, nothing, nothing, nothing, norm, loud, first)


@pytest.mark.parametrize("simd_width", SIMD_WIDTHS)
def test_nan_is_not_hidden(simd_width: int) -> None:
    reference = blocks(simd_width, 1, simd_width)
    x = torch.randn(30, simd_width)
    x[7, 0] = torch.nan
    assert run(compiled(reference, 1, simd_width), x).isnan().any(), "NaN must not be hidden"


@pytest.mark.parametrize(("channels", "heads", "head_width"), [(6, 1, 8), (8, 2, 6)])
def test_other_shapes_are_refused(channels: int, heads: int, head_width: int) -> None:
    with pytest.raises(ValueError, match=f"{channels} channels and {heads} heads"):
        compiled(blocks(channels, heads, head_width), 1)
