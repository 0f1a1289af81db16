"""The compiled draws of speech tokens are torch's, token by token."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engines.config import Sampling
from engines.kernels.library import simd_widths
from engines.t3.family import GPT2, LLAMA, Family
from engines.t3.sampler import NOT_FINITE, Sampler

pytestmark = pytest.mark.skipif(not simd_widths(), reason="the kernels are not compiled here")
CPU = torch.device("cpu")
FAMILIES = (GPT2, LLAMA)


def samplers(rows: Sequence[Sampling], family: Family, width: int) -> tuple[Sampler, Sampler]:
    """The kernel's and torch's."""
    pair = tuple(
        Sampler(len(rows), CPU, vocab=family.speech_vocab, rows=family.rows, simd_width=each) for each in (width, 0)
    )
    for sampler in pair:
        for slot, sampling in enumerate(rows):
            sampler.begin(slot, sampling)
    return pair[0], pair[1]


def logits(seed: int, rows: int, family: Family, spread: float, grain: float) -> Tensor:
    """Normal logits; with a grain many of them are equal."""
    drawn = spread * torch.randn(rows, family.speech_vocab, generator=torch.Generator().manual_seed(seed))
    return (drawn / grain).round() * grain if grain else drawn


def any_sampling() -> st.SearchStrategy[Sampling]:
    return st.builds(
        Sampling,
        temperature=st.sampled_from([0.0, 1e-300, 0.2, 0.8, 1.0, 5.0]),
        top_k=st.sampled_from([0, 1, 2, 7, 1000, 6563]),
        top_p=st.sampled_from([1e-300, 0.3, 0.8, 0.95, 0.999999, 1.0]),
        repetition_penalty=st.sampled_from([0.1, 1.0, 1.2, 10.0]),
        min_p=st.sampled_from([0.0, 1e-300, 0.01, 0.05, 0.5, 1.0]),
        seed=st.integers(0, 2**64 - 1),
    )


@given(
    st.lists(any_sampling(), min_size=1, max_size=6),
    st.integers(0, 2**32),
    st.sampled_from(FAMILIES),
    st.sampled_from(simd_widths() or (4,)),
    st.sampled_from([0.0, 0.1, 3.0, 20.0]),
    st.sampled_from([0.0, 0.25]),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_rows_of_any_settings_get_torchs_tokens(
    rows: list[Sampling], seed: int, family: Family, width: int, spread: float, grain: float
) -> None:
    compiled, reference = samplers(rows, family, width)
    slots = list(range(len(rows)))
    for step in range(3):
        batch = logits(seed + step, len(rows), family, spread, grain)
        assert compiled.sample(slots, batch) == reference.sample(slots, batch)
        slots = slots[::-1]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("width", simd_widths())
def test_long_histories_get_torchs_tokens(family: Family, width: int) -> None:
    rows = [
        Sampling(seed=seed, top_k=top_k, top_p=top_p, min_p=min_p)
        for seed, (top_k, top_p, min_p) in enumerate(
            [(1000, 0.95, 0.0), (0, 1.0, 0.05), (0, 0.9, 0.0), (50, 1.0, 0.02), (1000, 0.95, 0.0), (0, 1.0, 0.0)]
        )
    ]
    compiled, reference = samplers(rows, family, width)
    slots = list(range(len(rows)))
    for step in range(25):
        batch = logits(step, len(rows), family, 1.5, 0.0)
        assert compiled.sample(slots, batch) == reference.sample(slots, batch)


@pytest.mark.parametrize("width", simd_widths())
def test_rows_that_are_not_finite_fail_alone(width: int) -> None:
    rows = [Sampling(seed=seed) for seed in range(4)]
    compiled, reference = samplers(rows, GPT2, width)
    for bad in (torch.nan, torch.inf, -torch.inf):
        batch = logits(0, 4, GPT2, 1.0, 0.0)
        batch[1, 6562], batch[2, 17] = bad, bad
        drawn = compiled.sample([0, 1, 2, 3], batch)
        assert drawn == reference.sample([0, 1, 2, 3], batch)
        assert [token == NOT_FINITE for token in drawn] == [False, True, True, False]
        for sampler in (compiled, reference):
            for slot in (1, 2):
                sampler.begin(slot, rows[slot])


@pytest.mark.parametrize("width", simd_widths())
def test_logits_may_be_columns_of_wider_rows(width: int) -> None:
    rows = [Sampling(seed=seed) for seed in range(3)]
    compiled, reference = samplers(rows, GPT2, width)
    wide = torch.full((3, 6576), torch.nan)
    wide[:, :6563] = logits(1, 3, GPT2, 1.0, 0.0)
    assert compiled.sample([0, 1, 2], wide[:, :6563]) == reference.sample([0, 1, 2], wide[:, :6563].contiguous())
    across = wide[:, :6563].t().contiguous().t()
    assert compiled.sample([0, 1, 2], across) == reference.sample([0, 1, 2], across)
