"""Residual convolutions on AMX compute what torch's do: every shape and number of threads, alone and in a batch, from
the first frame on and behind earlier ones. Not every machine has AMX."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.kernels.library import amx_supported
from engines.s3gen.cache.cached_flow import _run_residual
from engines.s3gen.cache.conv import StreamingConv
from engines.s3gen.nets import cfm
from engines.s3gen.nets.compiled_cfm import compiled_residual

TOLERANCE = 2e-4  # of products of numbers that are the sums of two bfloat16 ones, for results of about 1
on_amx = pytest.mark.skipif(not amx_supported(), reason="this machine has no AMX")


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def residual(inputs: int, channels: int, seed: int = 0) -> cfm._Residual:
    """Weights of the size that trained ones have; norms that are not the identity."""
    draw = torch.Generator().manual_seed(seed)
    made = cfm._Residual(inputs, channels, 4 * channels).requires_grad_(False)
    for name, parameter in made.named_parameters():
        if parameter.dim() > 1:
            parameter.normal_(0.0, parameter[0].numel() ** -0.5, generator=draw)
        else:
            parameter.normal_(float(name.endswith("block.2.weight")), 0.3, generator=draw)
    return made


@on_amx
@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 3),
    frames=st.integers(1, 120),
    groups=st.tuples(st.integers(1, 5), st.integers(1, 4)),
    threads=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_convolutions_are_torchs_and_a_row_is_what_it_is_alone(
    rows: int, frames: int, groups: tuple[int, int], threads: int, seed: int
) -> None:
    inputs, channels = (32 * group for group in groups)
    net, draw = residual(inputs, channels, seed), torch.Generator().manual_seed(seed)
    x, time = torch.randn(rows, frames, inputs, generator=draw), torch.randn(rows, 4 * channels, generator=draw)
    made, spread = compiled_residual(net, threads), net.mlp["1"](time)
    got, expected = made(x, spread), net(x, time)
    assert (got - expected).abs().max() < TOLERANCE * max(1.0, float(expected.abs().max()))
    assert torch.equal(made(x[-1:], spread[-1:]), got[-1:])


@on_amx
@settings(max_examples=40, deadline=None)
@given(
    frames=st.integers(1, 50),
    new=st.lists(st.integers(0, 50), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_behind_earlier_frames_it_goes_on_and_leaves_a_state(frames: int, new: list[int], seed: int) -> None:
    inputs, channels, others = 64, 32, 7
    net, draw = residual(inputs, channels, seed), torch.Generator().manual_seed(seed)
    x = torch.randn(len(new), frames, inputs, generator=draw)
    time = torch.randn(len(new), 4 * channels, generator=draw)
    state = torch.randn(len(new), 2, others + inputs + channels, generator=draw)
    results = []
    made = compiled_residual(net, 2)
    for net.compiled_impl in (None, made):
        convs = StreamingConv(state, [others, inputs, channels], torch.tensor(new).clamp(max=frames))
        convs.take()[1].fill_(0.0)
        results.append((_run_residual(net, x, time, convs), convs.state()))
    (expected, expected_state), (got, got_state) = results
    assert (got - expected).abs().max() < TOLERANCE * max(1.0, float(expected.abs().max()))
    assert (got_state - expected_state).abs().max() < TOLERANCE * max(1.0, float(expected_state.abs().max()))


@on_amx
def test_the_activation_of_any_size_is_mish() -> None:
    """Weights that let channels pass: a norm's factors make them large."""
    channels = 32
    net = residual(channels, channels)
    for block in (net.block1, net.block2):
        block.block["0"].weight.zero_()
        block.block["0"].weight[:, :, 2] = torch.eye(channels)
    net.block2.norm.weight.fill_(100.0)
    x, time = torch.linspace(-1e3, 1e3, 40 * channels).view(1, 40, channels), torch.zeros(1, 4 * channels)
    got, expected = compiled_residual(net, 2)(x, net.mlp["1"](time)), net(x, time)
    assert (got - expected).abs().max() < 1e-4 * float(expected.abs().max())


@on_amx
def test_nan_stays_in_its_row_and_behind_its_frame() -> None:
    net = residual(32, 32)
    x, time = torch.randn(2, 20, 32, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 128)
    made, spread = compiled_residual(net, 2), net.mlp["1"](time)
    before = made(x, spread)
    x[0, 7, 3] = torch.nan
    after = made(x, spread)
    assert torch.equal(after[1], before[1])
    assert torch.equal(after[0, :7], before[0, :7])
    assert after[0, 7:12].isnan().all()
    assert torch.equal(after[0, 12:], before[0, 12:])


@pytest.mark.parametrize(("inputs", "channels"), [(40, 32), (32, 24)])
def test_other_shapes_are_refused(inputs: int, channels: int) -> None:
    with pytest.raises(ValueError, match=f"{inputs} to {channels} channels"):
        compiled_residual(residual(inputs, channels), 2)
