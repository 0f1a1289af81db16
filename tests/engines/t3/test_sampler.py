"""Draws depend on a row's own logits, history, seed and step, and follow its probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.config import Sampling
from engines.model_spec import SPEECH_VOCAB
from engines.t3 import sampler as sampler_module
from engines.t3.decoder import T3Decoder
from engines.t3.sampler import Sampler, uniform
from tests.engines.t3.setting import CPU, limits, net, request, run


def logits(seed: int, rows: int = 1) -> torch.Tensor:
    return 3 * torch.randn(rows, SPEECH_VOCAB, generator=torch.Generator().manual_seed(seed))


def sampler_of(*rows: Sampling) -> Sampler:
    sampler = Sampler(len(rows), CPU)
    for slot, sampling in enumerate(rows):
        sampler.begin(slot, sampling)
    return sampler


def any_sampling() -> st.SearchStrategy[Sampling]:
    return st.builds(
        Sampling,
        temperature=st.sampled_from([0.0, 1e-300, 0.2, 0.8, 1.0, 5.0]),
        top_k=st.sampled_from([0, 1, 7, 1000, SPEECH_VOCAB]),
        top_p=st.sampled_from([1e-300, 0.3, 0.95, 1.0]),
        repetition_penalty=st.sampled_from([0.1, 1.0, 1.2, 10.0]),
        seed=st.sampled_from([0, 1, 2**64 - 1]),
    )


@given(st.lists(any_sampling(), min_size=1, max_size=5), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_companions_change_neither_probabilities_nor_draws(rows: list[Sampling], random: object) -> None:
    together = sampler_of(*rows)
    alone = [sampler_of(sampling) for sampling in rows]
    order = list(range(len(rows)))
    for step in range(4):
        random.shuffle(order)  # type: ignore[attr-defined]
        batch = logits(step, len(rows))
        drawn = together.sample(order, batch[order])
        for slot, token in zip(order, drawn, strict=True):
            assert 0 <= token < SPEECH_VOCAB
            assert alone[slot].sample([0], batch[slot : slot + 1]) == [token]


def test_a_slot_keeps_nothing_of_the_sequence_before() -> None:
    used, fresh = sampler_of(Sampling(seed=1, temperature=2.0)), sampler_of(Sampling(seed=9))
    for step in range(5):
        used.sample([0], logits(step))
    used.begin(0, Sampling(seed=9))
    for step in range(5):
        torch.testing.assert_close(used.probabilities([0], logits(step)), fresh.probabilities([0], logits(step)))
        assert used.sample([0], logits(step)) == fresh.sample([0], logits(step))


def test_the_random_numbers_are_even_and_differ_by_seed_and_step() -> None:
    numbers = np.array([[uniform(seed, step) for step in range(200)] for seed in range(20)])
    assert len(np.unique(numbers)) == numbers.size
    assert numbers.min() >= 0
    assert numbers.max() < 1
    histogram, _ = np.histogram(numbers, bins=10, range=(0, 1))
    assert (np.abs(histogram - 400) < 100).all()  # five standard deviations
    assert np.abs(np.corrcoef(numbers)[np.triu_indices(20, 1)]).max() < 0.35


def test_the_random_numbers_never_change() -> None:
    """A seed's audio must stay the same from release to release."""
    expected = [0.011546754286331451, 0.5023796042735054, 0.44205212947108774]
    assert [uniform(0, 0), uniform(0, 1), uniform(7, 3)] == pytest.approx(expected, abs=1e-15)


def test_draws_follow_the_probabilities() -> None:
    drawn = np.zeros(SPEECH_VOCAB)
    row = logits(0)
    sampler = sampler_of(Sampling())
    for seed in range(3000):
        sampler.begin(0, Sampling(seed=seed, top_k=5, top_p=1.0))
        drawn[sampler.sample([0], row)[0]] += 1
    probabilities = sampler_of(Sampling(top_k=5, top_p=1.0)).probabilities([0], row)[0].numpy()
    assert (drawn > 0).sum() == 5
    np.testing.assert_allclose(drawn / 3000, probabilities, atol=0.04)  # over four standard deviations


def test_greedy_takes_the_likeliest_after_the_penalty() -> None:
    row = torch.zeros(1, SPEECH_VOCAB)
    row[0, 10], row[0, 20], row[0, 30] = 6.0, 5.5, 4.9
    sampler = sampler_of(Sampling(temperature=0, repetition_penalty=1.2))
    # 6.0, then 6.0 / 1.2 = 5.0 < 5.5, then 5.5 / 1.2 = 4.58 and 5.0 > 4.9
    assert [sampler.sample([0], row)[0] for _ in range(3)] == [10, 20, 10]


def test_the_start_mark_is_penalised_for_the_first_draw_only() -> None:
    row = torch.zeros(1, SPEECH_VOCAB)
    row[0, 6561], row[0, 10] = 6.0, 5.5
    sampler = sampler_of(Sampling(temperature=0, repetition_penalty=1.2))
    assert [sampler.sample([0], row)[0] for _ in range(2)] == [10, 6561]


def test_tokens_tied_at_the_cut_are_all_kept() -> None:
    row = torch.zeros(1, SPEECH_VOCAB)
    row[0, :10] = 5.0
    assert (sampler_of(Sampling(top_k=3, top_p=1.0)).probabilities([0], row) > 0).sum() == 10


def test_a_seeds_tokens_are_the_same_without_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    varied: list[dict[str, Any]] = [{}, {"top_k": 0, "temperature": 1.0}, {"top_p": 1.0, "top_k": 20}]
    varied.append({"temperature": 0.0})
    requests = [request(seed, max_speech_tokens=40, **each) for seed, each in enumerate(varied)]
    with_kernel = run(T3Decoder(net(), limits()), *requests)
    monkeypatch.setattr(sampler_module, "best_simd_width", lambda: None)
    assert run(T3Decoder(net(), limits()), *requests) == with_kernel
    assert min(map(len, with_kernel)) > 5


def test_a_companions_larger_top_k_adds_no_ties_to_the_mass_of_top_p() -> None:
    """Of the two that top-k leaves, the less likely has 0.27 of the mass, which top-p cuts."""
    row = torch.zeros(2, SPEECH_VOCAB)
    row[:, :100], row[:, 200] = 5.0, 6.0
    narrow = Sampling(top_k=2, top_p=0.7, temperature=1.0, repetition_penalty=1.0)
    alone = sampler_of(narrow).probabilities([0], row[:1])
    assert torch.equal(alone, sampler_of(narrow, Sampling(top_k=1000)).probabilities([0, 1], row)[:1])
    assert alone[0].nonzero().flatten().tolist() == [200]
