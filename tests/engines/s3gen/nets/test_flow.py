"""The flow's nets: padding, times, positions and precision change nothing that they must not change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from engines.errors import CheckpointError
from engines.model_spec import TINY
from engines.s3gen.nets.cfm import Estimator
from engines.s3gen.nets.encoder import PositionCache
from engines.s3gen.nets.flow import Flow, load_flow
from engines.s3gen.nets.layers import key_bias
from tests.engines.s3gen import small_nets

PROMPTS, NEW = [12, 25, 3], [20, 18, 11]  # rows of 32, 43 and 14 tokens


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return (a - b).abs().max().item()


def test_a_padded_row_is_what_it_is_alone() -> None:
    net, batch = small_nets.flow(), small_nets.flow_batch(PROMPTS, NEW)
    together = net(*small_nets.flow_inputs(batch))
    for row, length in enumerate(batch.token_lengths):
        alone = net(*small_nets.flow_inputs(small_nets.flow_row(batch, row), padded=False))
        assert distance(together[row : row + 1, : 2 * length], alone) < 2e-5
        assert not together[row, 2 * length :].any()


def test_the_encoder_leaks_nothing_from_the_pad() -> None:
    """The bias of its first linear layer fills the pad, and the lookahead convolution reads three tokens ahead."""
    net, batch = small_nets.flow().encoder, small_nets.flow_batch(PROMPTS, NEW)
    tokens, lengths, _, _, x_vector = small_nets.flow_inputs(batch)
    assert tokens is not None
    mu, _ = net(tokens, lengths, x_vector)
    scrambled = tokens.clone()
    for row, length in enumerate(batch.token_lengths):
        scrambled[row, length:] = 4299
    assert distance(net(scrambled, lengths, x_vector)[0], mu) == 0
    alone, _ = net(tokens[2:, :14], None, x_vector[2:])
    assert distance(mu[2:, :28], alone) < 2e-5


def test_lengths_that_fill_their_rows_change_nothing() -> None:
    net, batch = small_nets.flow(), small_nets.flow_batch([10, 10], [20, 20])
    assert distance(net(*small_nets.flow_inputs(batch)), net(*small_nets.flow_inputs(batch, padded=False))) < 2e-5


def test_rows_of_one_step_may_be_at_different_times() -> None:
    net, batch = small_nets.flow(), small_nets.flow_batch([5, 9, 7], [9, 20, 12])
    estimator = net.solver.estimator
    x, mu, speaker, prompt_mel, lengths = _step_inputs(net, batch)
    t, r = torch.tensor([0.0, 0.5, 0.25]), torch.tensor([0.5, 1.0, 0.3])
    together = estimator(x, mu, speaker, prompt_mel, lengths, t, r)
    for row, frames in enumerate(lengths):
        one = slice(row, row + 1)
        parts = (x[one, :frames], mu[one, :frames], speaker[one], prompt_mel[one, :frames], None, t[one], r[one])
        assert distance(together[one, :frames], estimator(*parts)) < 2e-5


@pytest.mark.parametrize(("t", "r"), [(0.0, 1.0), (0.25, 0.5), (0.5, 0.75)])
def test_both_times_matter(t: float, r: float) -> None:
    net, batch = small_nets.flow(), small_nets.flow_batch([5], [9])
    x, mu, speaker, prompt_mel, _ = _step_inputs(net, batch)
    velocities = [
        net.solver.estimator(x, mu, speaker, prompt_mel, None, torch.tensor([a]), torch.tensor([b]))
        for a, b in ((0.0, 0.5), (t, r))
    ]
    assert distance(*velocities) > 0.05


def test_the_solver_takes_exactly_two_euler_steps() -> None:
    net, batch = small_nets.flow(), small_nets.flow_batch([5], [9])
    x, mu, speaker, prompt_mel, _ = _step_inputs(net, batch)
    expected = x
    for t, r in ((0.0, 0.5), (0.5, 1.0)):
        velocity = net.solver.estimator(expected, mu, speaker, prompt_mel, None, torch.tensor([t]), torch.tensor([r]))
        expected = expected + 0.5 * velocity
    assert distance(net.solver(x, mu, speaker, prompt_mel, None), expected) == 0
    assert distance(net(*small_nets.flow_inputs(batch, padded=False)), expected) < 1e-6


def test_kept_positions_serve_every_length() -> None:
    net = small_nets.flow().encoder
    cache = PositionCache(net)
    for tokens in (30, 5, 64, 65, 200, 1, 131):
        for kept, computed in zip(cache.get(tokens), net.project_positions(tokens), strict=True):
            # the last column is a position that attention never uses
            assert distance(kept[..., :-1], computed[..., :-1]) < 1e-5


def test_attention_in_blocks_equals_attention_at_once() -> None:
    batch = small_nets.flow_batch(PROMPTS, NEW)
    for padded in (True, False):
        inputs = small_nets.flow_inputs(batch, padded=padded)
        net = small_nets.flow()
        whole = net(*inputs)
        for frames in (5, 16, 1000):
            net.encoder.attend_in_blocks(frames)
            assert distance(net(*inputs), whole) < 2e-5


def test_the_voice_and_the_prompt_matter() -> None:
    net, batch = small_nets.flow(), small_nets.flow_batch([20], [20])
    mel = net(*small_nets.flow_inputs(batch, padded=False))
    for changed in (replace(batch, x_vector=-batch.x_vector), replace(batch, prompt_mel=0 * batch.prompt_mel)):
        assert distance(net(*small_nets.flow_inputs(changed, padded=False)), mel) > 0.05


def test_the_length_of_the_x_vector_does_not_matter() -> None:
    net, batch = small_nets.flow(), small_nets.flow_batch([6], [6])
    longer = replace(batch, x_vector=batch.x_vector * np.float32(7.5))
    assert distance(net(*small_nets.flow_inputs(batch)), net(*small_nets.flow_inputs(longer))) < 2e-5


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e3])
def test_extreme_inputs_stay_finite(scale: float) -> None:
    net, batch = small_nets.flow(), small_nets.flow_batch([1, 30], [1, 10])
    extreme = replace(
        batch,
        noise=batch.noise * np.float32(scale),
        prompt_mel=batch.prompt_mel * np.float32(scale),
        x_vector=batch.x_vector * np.float32(scale),
    )
    assert torch.isfinite(net(*small_nets.flow_inputs(extreme))).all()


def test_a_single_token_is_enough() -> None:
    mel = small_nets.flow()(*small_nets.flow_inputs(small_nets.flow_batch([0], [1]), padded=False))
    assert mel.shape == (1, 2, 80)
    assert torch.isfinite(mel).all()


def test_half_precision_survives_padding() -> None:
    batch = small_nets.flow_batch([4, 7], [3, 9])
    full, half = (
        small_nets.flow()(*small_nets.flow_inputs(batch)),
        small_nets.flow().half()(*small_nets.flow_inputs(batch)),
    )
    assert half.dtype == torch.float32
    assert (half - full).norm() < 0.02 * full.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_bias_of_masked_keys_is_finite_and_hides_them(dtype: torch.dtype) -> None:
    """Upstream's -1e10 is -inf in float16; folded into a graph, 0 * -inf is NaN."""
    bias = key_bias(torch.tensor([2, 4]), 4, dtype)
    assert bias is not None
    assert torch.isfinite(bias).all()
    assert torch.softmax(bias[0, 0, 0], -1).tolist() == [0.5, 0.5, 0.0, 0.0]
    assert not bias[1].any()


def test_a_file_without_a_tensor_is_refused_by_its_name(tmp_path: Path) -> None:
    tensors = load_file(small_nets.checkpoint().s3gen_path)
    del tensors["flow.encoder.after_norm.bias"]
    tensors["flow.encoder_proj.weight"] = tensors["flow.encoder_proj.weight"][:, 1:].copy()
    save_file(tensors, tmp_path / "broken.safetensors")
    with pytest.raises(CheckpointError, match=r"flow\.encoder\.after_norm\.bias") as caught:
        load_flow(tmp_path / "broken.safetensors", TINY)
    assert "flow.encoder_proj.weight" in str(caught.value)


ROWS, TOKENS, FRAMES = (torch.export.Dim(name, max=4096) for name in ("rows", "tokens", "frames"))
BY_ROW, BY_FRAME = {0: ROWS}, {0: ROWS, 1: FRAMES}


@pytest.mark.parametrize("padded", [True, False])
def test_the_encoder_exports_with_any_batch_and_length(padded: bool) -> None:
    dims = ({0: ROWS, 1: TOKENS}, BY_ROW if padded else None, BY_ROW)
    examples = [_encoder_inputs(batch, padded) for batch in _export_batches(padded)]
    _check_export(small_nets.flow().encoder, *examples, dims)


def test_the_step_exports_with_any_batch_and_length() -> None:
    net = small_nets.flow()
    dims = (BY_FRAME, BY_FRAME, BY_ROW, BY_FRAME, BY_ROW, BY_ROW, BY_ROW)
    examples = [_timed(net, batch) for batch in _export_batches(padded=True)]
    _check_export(net.solver.estimator, *examples, dims)


def _export_batches(padded: bool) -> tuple[small_nets.FlowBatch, small_nets.FlowBatch]:
    """One to export with and one of another size to try the result with."""
    if padded:
        return small_nets.flow_batch([5, 9], [9, 20]), small_nets.flow_batch([2, 7, 1], [12, 30, 5])
    return small_nets.flow_batch([5, 5], [9, 9]), small_nets.flow_batch([9, 9, 9], [8, 8, 8])


def _check_export(
    net: torch.nn.Module, example: tuple[object, ...], other: tuple[object, ...], dims: tuple[object, ...]
) -> None:
    exported = torch.export.export(net, example, dynamic_shapes=dims, strict=False).module()
    for got, expected in zip(_tuple(exported(*other)), _tuple(net(*other)), strict=True):
        assert distance(got, expected) < 2e-5


def _tuple(result: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def _encoder_inputs(batch: small_nets.FlowBatch, padded: bool) -> tuple[object, ...]:
    tokens, lengths, _, _, x_vector = small_nets.flow_inputs(batch, padded=padded)
    return tokens, lengths, x_vector


def _step_inputs(net: Flow, batch: small_nets.FlowBatch) -> tuple[torch.Tensor, ...]:
    """x, mu, speaker, prompt mel and frame lengths, as the estimator takes them."""
    tokens, lengths, prompt_mel, noise, x_vector = small_nets.flow_inputs(batch)
    assert lengths is not None
    mu, speaker = net.encoder(tokens, lengths, x_vector)
    assert isinstance(net.solver.estimator, Estimator)
    return noise, mu, speaker, prompt_mel, 2 * lengths


def _timed(net: Flow, batch: small_nets.FlowBatch) -> tuple[object, ...]:
    inputs = _step_inputs(net, batch)
    times = torch.rand(2, len(batch.tokens), generator=torch.Generator().manual_seed(0))
    return (*inputs, times[0], times[1])
