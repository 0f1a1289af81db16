"""The compiled attention of T3's step against torch's, row by row."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engines.kernels.attention import CachedSequence, StepAttention, attention_width
from engines.kernels.library import simd_widths

pytestmark = pytest.mark.skipif(not simd_widths(), reason="the kernels are not compiled here")
HEADS, LAYERS = 2, 2


class Rows:
    """A row of queries, keys and values each, behind sequences of these (shared, own) positions."""

    def __init__(self, lengths: list[tuple[int, int]], dim: int, seed: int = 0, *, half: bool = False) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.dim, self.half = dim, half
        prefixes = {shared: torch.randn(LAYERS, 2, HEADS, shared, dim, generator=rng) for shared, _ in lengths}
        self.prefixes = [prefixes[shared] for shared, _ in lengths]
        self.positions = [shared + own for shared, own in lengths]
        self.caches = []
        for prefix, positions in zip(self.prefixes, self.positions, strict=True):
            cache = torch.full((LAYERS, 2, HEADS, positions + 5, dim), float("nan"))  # what is not held is not read
            cache[:, :, :, :positions] = torch.randn(LAYERS, 2, HEADS, positions, dim, generator=rng)
            cache[:, :, :, : prefix.shape[3]] = prefix
            self.caches.append(cache.half() if half else cache)
        if half:
            self.prefixes = [prefix.half() for prefix in self.prefixes]
        self.qkv = torch.randn(len(lengths), 3, HEADS, dim, generator=rng)

    def compiled(self, layer: int, width: int, rows: list[int] | None = None, *, shared: bool = True) -> Tensor:
        """(rows, HEADS, dim)"""
        rows = list(range(len(self.qkv))) if rows is None else rows
        sequences = []
        for row in rows:
            cache, prefix = self.caches[row], self.prefixes[row]
            sequence = CachedSequence(cache.data_ptr(), cache.shape[3], self.positions[row])
            if shared and prefix.shape[3]:
                sequence = CachedSequence(
                    cache.data_ptr(), cache.shape[3], self.positions[row], prefix.data_ptr(), prefix.shape[3]
                )
            sequences.append(sequence)
        qkv, out = self.qkv[rows].contiguous(), torch.full((len(rows), HEADS, self.dim), float("nan"))
        step = StepAttention(sequences, HEADS, self.dim, 2, "t3", width, half=self.half)
        step.run(layer, qkv.data_ptr(), out.data_ptr())
        return out

    def held(self, rows: Tensor) -> Tensor:
        """Keys or values as the cache keeps them."""
        return rows.clamp(-65504, 65504).half().float() if self.half else rows

    def torchs(self, layer: int) -> Tensor:
        outputs = []
        for row, cache, positions in zip(self.qkv, self.caches, self.positions, strict=True):
            keys, values = (
                torch.cat([cache[layer, i, :, :positions].float(), self.held(row[1 + i]).unsqueeze(1)], dim=1)
                for i in range(2)
            )
            mixed = F.scaled_dot_product_attention(row[0].unsqueeze(1)[None], keys[None], values[None])
            outputs.append(mixed[0, :, 0])
        return torch.stack(outputs)


LENGTHS = st.lists(st.tuples(st.sampled_from([0, 1, 31, 32, 33, 70]), st.integers(0, 40)), min_size=1, max_size=6)


WIDTHS = [(width, half) for width in simd_widths() for half in (False, True) if width >= 8 or not half]


@pytest.mark.parametrize(("width", "half"), WIDTHS)
@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS, dim=st.sampled_from([16, 32, 48, 64]), layer=st.integers(0, LAYERS - 1))
def test_every_row_equals_torchs_and_is_held(
    width: int, half: bool, lengths: list[tuple[int, int]], dim: int, layer: int
) -> None:
    rows = Rows(lengths, dim, half=half)
    torch.testing.assert_close(rows.compiled(layer, width), rows.torchs(layer), atol=2e-6, rtol=1e-5)
    for qkv, cache, positions in zip(rows.qkv, rows.caches, rows.positions, strict=True):
        assert torch.equal(cache[layer, :, :, positions].float(), rows.held(qkv[1:]))
        assert cache[layer, :, :, positions + 1 :].isnan().all()
        assert cache[1 - layer, :, :, positions:].isnan().all(), "other layers are left alone"


@pytest.mark.parametrize(("width", "half"), WIDTHS)
@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS, dim=st.sampled_from([32, 48, 64]))
def test_a_rows_bits_depend_on_its_own_sequence_alone(
    width: int, half: bool, lengths: list[tuple[int, int]], dim: int
) -> None:
    rows = Rows(lengths, dim, half=half)
    together = rows.compiled(0, width)
    for row in range(len(lengths)):
        assert torch.equal(rows.compiled(0, width, [row])[0], together[row])
        assert torch.equal(rows.compiled(0, width, [row], shared=False)[0], together[row])


@pytest.mark.parametrize("width", simd_widths())
def test_scores_may_be_as_far_apart_as_float32_allows(width: int) -> None:
    rows = Rows([(0, 40), (33, 7)], 64)
    rows.qkv[:, 0] *= 1e3
    torch.testing.assert_close(rows.compiled(1, width), rows.torchs(1), atol=1e-4, rtol=1e-4)


def test_float16_holds_its_largest_number_for_a_larger_one() -> None:
    rows = Rows([(0, 40), (33, 7)], 64, half=True)
    rows.qkv[:, 1:] *= 1e6
    out = rows.compiled(0, simd_widths()[0])
    assert out.isfinite().all()
    for qkv, cache, positions in zip(rows.qkv, rows.caches, rows.positions, strict=True):
        assert torch.equal(cache[0, :, :, positions].float(), rows.held(qkv[1:]))
        qkv[1:] = torch.nan
    assert rows.compiled(0, simd_widths()[0]).isnan().all(), "NaN must not be hidden"


def test_heads_that_no_number_of_vectors_makes_are_left_to_torch() -> None:
    assert attention_width(64) == simd_widths()[0]
    assert attention_width(62) is None
    assert attention_width(20, half=True) is None, "float16 needs wider vectors than four"
