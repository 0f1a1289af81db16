"""The sampler that replaces vLLM's, against upstream's own processors and in distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from engines.config import Sampling
from engines.model_spec import SPEECH_VOCAB, START_SPEECH_TOKEN
from engines.t3.sampler import Sampler
from engines.t3.vllm.sampler import NOT_FINITE_TOKEN, BatchSampler, Row
from engines.t3.vllm.vocab import IdSpace

CPU = torch.device("cpu")
IDS = IdSpace(text_vocab=10, voice_slots=1)


@dataclass
class Batch:
    """A batch of rows that a test makes."""

    size: int
    rows: list[Row] = field(default_factory=list)

    def due(self) -> list[Row]:
        return self.rows


def batch_of(histories: Sequence[Sequence[int]], samplings: Sequence[Sampling]) -> Batch:
    pairs = zip(histories, samplings, strict=True)
    rows = [Row(i, f"request {i}", sampling, history) for i, (history, sampling) in enumerate(pairs)]
    return Batch(len(rows), rows)


def random_histories(count: int, seed: int) -> list[list[int]]:
    """Lengths from none to several hundred, so that some rows draw their first token."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, SPEECH_VOCAB, rng.integers(1, 400) * (i % 4 > 0)).tolist() for i in range(count)]


def random_samplings(count: int, seed: int) -> list[Sampling]:
    rng = np.random.default_rng(seed)
    return [
        Sampling(
            temperature=float(rng.uniform(0.3, 1.5)),
            top_k=int(rng.integers(1, SPEECH_VOCAB)),
            top_p=float(rng.uniform(0.2, 1.0)),
            repetition_penalty=float(rng.uniform(0.8, 2.0)),
            seed=int(rng.integers(2**63)),
        )
        for _ in range(count)
    ]


def upstreams_probabilities(logits: torch.Tensor, history: Sequence[int], sampling: Sampling) -> torch.Tensor:
    """As upstream's `inference_turbo` builds it: the penalty last, over generated tokens, over the start at first."""
    processors = LogitsProcessorList(
        [
            TemperatureLogitsWarper(sampling.temperature),
            TopKLogitsWarper(sampling.top_k),
            TopPLogitsWarper(sampling.top_p),
            RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty),
        ]
    )
    seen = torch.tensor([list(history) or [START_SPEECH_TOKEN]])
    return processors(seen, logits[None].clone())[0].softmax(-1)


def test_probabilities_are_upstreams_on_random_logits_and_histories() -> None:
    rows = 48
    logits = 3 * torch.randn(rows, SPEECH_VOCAB, generator=torch.Generator().manual_seed(0))
    histories, samplings = random_histories(rows, 1), [Sampling()] * 8 + random_samplings(rows - 8, 2)
    ours = BatchSampler(batch_of(histories, samplings), rows, CPU, ids=IDS).probabilities(logits)
    theirs = torch.stack([upstreams_probabilities(*row) for row in zip(logits, histories, samplings, strict=True)])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_sampled_tokens_are_distributed_as_the_probabilities_say() -> None:
    """Many seeds at one state: same logits, same history."""
    seeds, slots = 16_384, 256
    generator = torch.Generator().manual_seed(3)
    logits = (4 * torch.randn(SPEECH_VOCAB, generator=generator)).expand(slots, -1)
    history = random_histories(4, 5)[3]
    counts = np.zeros(SPEECH_VOCAB)
    batch = Batch(slots)
    sampler = BatchSampler(batch, slots, CPU, ids=IDS)
    for first in range(0, seeds, slots):
        names = range(first, first + slots)
        batch.rows = [Row(i, str(seed), Sampling(seed=seed), history) for i, seed in enumerate(names)]
        counts += np.bincount(sampler.tokens(logits), minlength=SPEECH_VOCAB)
    expected = seeds * upstreams_probabilities(logits[0], history, Sampling()).double().numpy()
    common = expected >= 10
    assert common.sum() > 20, "few tokens to choose from would prove little"
    observed = np.append(counts[common], counts[~common].sum())
    predicted = np.append(expected[common], expected[~common].sum())
    assert chisquare(observed, predicted * observed.sum() / predicted.sum()).pvalue > 0.01


def test_a_sequence_that_leaves_and_comes_back_draws_as_if_it_had_stayed() -> None:
    """Preemption: its state is its history, whichever slot it gets."""
    steps = 40
    logits = 3 * torch.randn(steps, SPEECH_VOCAB, generator=torch.Generator().manual_seed(7))
    sampling = Sampling(seed=11, repetition_penalty=1.7)
    stayed = Sampler(1, CPU)
    stayed.begin(0, sampling)
    expected = [stayed.sample([0], row[None])[0] for row in logits]

    batch = Batch(2)
    sampler = BatchSampler(batch, 2, CPU, ids=IDS)
    drawn: list[int] = []
    other = Row(0, "other", Sampling(seed=5), [])
    for step, row in enumerate(logits):
        if step % 5 == 4:  # a step without it, in which another takes its slot
            batch.rows = [other, replace(other, index=1, request_id="third")]
            sampler.tokens(row.expand(2, -1))
        batch.rows = [Row(step % 2, "mine", sampling, list(drawn))]
        drawn.append(sampler.tokens(row.expand(2, -1))[step % 2])
    assert drawn == expected


def test_rows_do_not_depend_on_each_other() -> None:
    rows = 12
    logits = 3 * torch.randn(rows, SPEECH_VOCAB, generator=torch.Generator().manual_seed(8))
    histories, samplings = random_histories(rows, 9), random_samplings(rows, 10)
    batch = batch_of(histories, samplings)
    together = BatchSampler(batch, rows, CPU, ids=IDS).tokens(logits)
    alone = []
    for row in batch.rows:
        single = Batch(rows, [row])
        alone.append(BatchSampler(single, rows, CPU, ids=IDS).tokens(logits)[row.index])
    assert together == alone


def test_a_row_that_is_not_due_draws_nothing() -> None:
    """A prompt that is read in parts has logits after each part; only the last ones count."""
    batch = batch_of([[], []], [Sampling(seed=1), Sampling(seed=2)])
    logits = torch.randn(2, SPEECH_VOCAB, generator=torch.Generator().manual_seed(0))
    expected = BatchSampler(batch, 2, CPU, ids=IDS).tokens(logits)

    sampler = BatchSampler(batch, 2, CPU, ids=IDS)
    whole, batch.rows = batch.rows, batch.rows[:1]
    partial = sampler.tokens(logits)
    assert partial == [expected[0], NOT_FINITE_TOKEN]
    batch.rows = [replace(whole[0], drawn=[expected[0]]), whole[1]]
    assert sampler.tokens(logits)[1] == expected[1]


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_not_finite_spoil_their_own_row_only(poison: float) -> None:
    batch = batch_of([[], [], []], [Sampling(seed=seed) for seed in range(3)])
    logits = torch.randn(3, SPEECH_VOCAB, generator=torch.Generator().manual_seed(0))
    expected = BatchSampler(batch, 3, CPU, ids=IDS).tokens(logits)
    logits[1, 17] = poison
    assert BatchSampler(batch, 3, CPU, ids=IDS).tokens(logits) == [expected[0], NOT_FINITE_TOKEN, expected[2]]
