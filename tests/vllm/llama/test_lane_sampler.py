"""Draws with guidance under vLLM: each row's weight, places in ids, histories that begin with the start mark."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from engines.config import Sampling
from engines.model_spec import SPEECH_VOCAB, STANDARD_TINY
from engines.t3.family import LLAMA
from engines.t3.llama.weights import spec_of
from engines.t3.sampler import Sampler
from engines.t3.vllm.llama.vocab import LaneIds
from engines.t3.vllm.sampler import NOT_FINITE_TOKEN, BatchSampler, Row
from tests.vllm.test_sampler import Batch

CPU = torch.device("cpu")
IDS = LaneIds(spec_of(STANDARD_TINY), 4)
VOCAB = LLAMA.speech_vocab


def guided(lanes: Tensor, weights: Tensor) -> Tensor:
    with_text, without_text = lanes.chunk(2, dim=-1)
    return with_text + weights * (with_text - without_text)


def sampler_of(batch: Batch, slots: int) -> BatchSampler:
    return BatchSampler(batch, slots, CPU, ids=IDS, rules=LLAMA, guided=guided)


def lanes(rows: int, seed: int) -> Tensor:
    return 3 * torch.randn(rows, 2 * VOCAB, generator=torch.Generator().manual_seed(seed))


def alone(sampling: Sampling, computed: Tensor) -> list[int]:
    """The torch backend's sampler on each step's logits."""
    sampler = Sampler(1, CPU, vocab=VOCAB, rows=LLAMA.rows)
    sampler.begin(0, sampling)
    weights = torch.full((1, 1), sampling.cfg_weight)
    return [sampler.sample([0], guided(row[None], weights))[0] for row in computed]


def test_every_row_is_guided_by_its_own_weight_and_drawn_as_on_torch() -> None:
    settings = [replace(LLAMA.sampling, seed=seed, cfg_weight=seed / 4) for seed in range(8)]
    computed, batch = lanes(8, 1), Batch(8)
    batch.rows = [Row(index, str(index), each, []) for index, each in enumerate(settings)]
    ids = sampler_of(batch, 8).tokens(computed)
    expected = [alone(each, computed[index : index + 1])[0] for index, each in enumerate(settings)]
    assert ids == [IDS.drawn(token, 0) for token in expected]


@pytest.mark.parametrize("penalty", [1.2, 10.0])
def test_a_sequence_that_comes_back_has_its_places_and_still_avoids_the_start_mark(penalty: float) -> None:
    """The start mark is likely in every step: only its penalty keeps it from being drawn."""
    sampling, steps = replace(LLAMA.sampling, seed=11, repetition_penalty=penalty), 30
    computed = lanes(steps, 7)
    computed[:, [SPEECH_VOCAB - 2, VOCAB + SPEECH_VOCAB - 2]] = 10.0
    batch, drawn = Batch(2), list[int]()
    sampler, other = sampler_of(batch, 2), Row(0, "other", Sampling(seed=5), [])
    for step in range(steps):
        if step % 5 == 4:  # a step without it, in which others take its slot
            batch.rows = [other, replace(other, index=1, request_id="third")]
            sampler.tokens(computed[step].expand(2, -1))
        batch.rows = [Row(step % 2, "mine", sampling, list(drawn))]
        drawn.append(sampler.tokens(computed[step].expand(2, -1))[step % 2])
    expected = alone(sampling, computed)
    assert drawn == [IDS.drawn(token, step) for step, token in enumerate(expected)]
    assert len(set(expected)) > (1 if penalty < 2 else 20)


@pytest.mark.parametrize("lane", [0, 1])
def test_a_lane_that_is_not_finite_spoils_its_own_row_only(lane: int) -> None:
    """And the token behind the marks, which stands for no failure here, can be drawn."""
    computed, batch = lanes(3, 2), Batch(3)
    computed[2, [SPEECH_VOCAB, VOCAB + SPEECH_VOCAB]] = 100.0
    batch.rows = [Row(index, str(index), replace(LLAMA.sampling, seed=index), []) for index in range(3)]
    first, _, last = sampler_of(batch, 3).tokens(computed)
    computed[1, lane * VOCAB + 17] = np.nan
    assert sampler_of(batch, 3).tokens(computed) == [first, NOT_FINITE_TOKEN, last]
    assert IDS.token(last) == SPEECH_VOCAB
