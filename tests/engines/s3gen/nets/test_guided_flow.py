"""The flow of standard and Multilingual: ten steps on upstream's schedule, each led away from an unconditional lane."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from engines.s3gen.nets.cfm import Estimator, euler_times, step_velocity
from engines.s3gen.runtime import FlowBatch
from engines.s3gen.runtimes.torch import TorchRuntime
from tests.engines.s3gen import small_nets
from tests.engines.s3gen.small_nets import GUIDED_TINY

PROMPTS, NEW = [12, 25, 3], [20, 18, 11]  # rows of 32, 43 and 14 tokens


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def runtime() -> TorchRuntime:
    return TorchRuntime(small_nets.checkpoint(GUIDED_TINY))


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return (a - b).abs().max().item()


def inputs_of(batch: FlowBatch) -> tuple[Estimator, tuple[torch.Tensor, ...]]:
    """The estimator; x, mu, speaker and prompt mel."""
    net = small_nets.flow(GUIDED_TINY)
    tokens, _, prompt_mel, noise, x_vector = small_nets.flow_inputs(batch, padded=False)
    mu, speaker = net.encoder(tokens, None, x_vector)
    assert prompt_mel is not None
    assert noise is not None
    return net.solver.estimator, (noise, mu, speaker, prompt_mel)


def test_the_schedule_is_a_cosine_from_noise_to_mel() -> None:
    times = euler_times(GUIDED_TINY.flow.guided_steps)
    expected = [1 - np.cos(np.pi / 2 * step / 10) for step in range(11)]
    np.testing.assert_allclose(times, expected, atol=2e-7)
    assert sorted(set(times)) == list(times)


def test_each_step_leads_away_from_the_lane_without_conditions() -> None:
    batch = small_nets.flow_batch([5], [9])
    net, (x, mu, speaker, prompt_mel) = inputs_of(batch)
    expected = x
    for t, r in pairwise(euler_times(10)):
        at, to = torch.tensor([t]), torch.tensor([r])
        conditional = net(expected, mu, speaker, prompt_mel, None, at, to)
        unconditional = net(expected, 0 * mu, 0 * speaker, 0 * prompt_mel, None, at, to)
        assert distance(conditional, unconditional) > 0.05
        expected = expected + (r - t) * (1.7 * conditional - 0.7 * unconditional)
    mel = small_nets.flow(GUIDED_TINY)(*small_nets.flow_inputs(batch, padded=False))
    assert distance(mel, expected) < 2e-5 * float(expected.std())


def test_only_the_time_of_a_step_s_start_is_read() -> None:
    net, inputs = inputs_of(small_nets.flow_batch([5], [9]))
    start, end, other = torch.tensor([0.25]), torch.tensor([0.5]), torch.tensor([0.9])
    velocity = step_velocity(net, *inputs, None, start, end)
    assert distance(step_velocity(net, *inputs, None, start, other), velocity) == 0
    assert distance(step_velocity(net, *inputs, None, other, end), velocity) > 0.05


@pytest.mark.parametrize("new_tokens", [[20, 18, 11], [20, 7, 29]], ids=["different lengths", "equal lengths"])
def test_a_row_does_not_depend_on_its_companions(runtime: TorchRuntime, new_tokens: list[int]) -> None:
    batch = small_nets.flow_batch(PROMPTS, new_tokens)
    together = runtime.flow(batch)
    for row, length in enumerate(batch.token_lengths):
        alone = runtime.flow(small_nets.flow_row(batch, row))
        assert np.abs(together[row, : 2 * length] - alone[0]).max() < 1e-4 * alone.std()
        assert not together[row, 2 * length :].any()


def test_a_padded_row_is_what_it_is_alone() -> None:
    """In one padded call, as on a GPU."""
    net, batch = small_nets.flow(GUIDED_TINY), small_nets.flow_batch(PROMPTS, NEW)
    together = net(*small_nets.flow_inputs(batch))
    for row, length in enumerate(batch.token_lengths):
        alone = net(*small_nets.flow_inputs(small_nets.flow_row(batch, row), padded=False))
        assert distance(together[row : row + 1, : 2 * length], alone) < 1e-4 * float(alone.std())
        assert not together[row, 2 * length :].any()


def test_the_prompt_s_noise_voice_and_mel_matter() -> None:
    net, batch = small_nets.flow(GUIDED_TINY), small_nets.flow_batch([20], [20])
    mel = net(*small_nets.flow_inputs(batch, padded=False))
    fresh = batch.noise.copy()
    fresh[:, :40] *= -1
    others = {"x_vector": -batch.x_vector, "prompt_mel": 0 * batch.prompt_mel, "noise": fresh}
    for name, value in others.items():
        changed = replace(batch, **{name: value})
        assert distance(net(*small_nets.flow_inputs(changed, padded=False))[:, 40:], mel[:, 40:]) > 0.05, name


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e3])
def test_extreme_inputs_stay_finite(scale: float) -> None:
    batch = small_nets.flow_batch([1, 30], [1, 10])
    extreme = replace(batch, noise=batch.noise * np.float32(scale), prompt_mel=batch.prompt_mel * np.float32(scale))
    assert torch.isfinite(small_nets.flow(GUIDED_TINY)(*small_nets.flow_inputs(extreme))).all()


def test_half_precision_stays_close() -> None:
    batch = small_nets.flow_batch([4, 7], [3, 9])
    full = small_nets.flow(GUIDED_TINY)(*small_nets.flow_inputs(batch))
    half = small_nets.flow(GUIDED_TINY).half()(*small_nets.flow_inputs(batch))
    assert half.dtype == torch.float32
    assert (half - full).norm() < 0.02 * full.norm()
