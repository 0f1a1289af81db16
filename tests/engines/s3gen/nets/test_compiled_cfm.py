"""A flow with compiled transformer blocks and residual convolutions says what it says without.

Where they cannot stand in, it says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from engines.kernels import causal_residual, library, transformer
from engines.model_spec import TINY, ModelSpec
from engines.s3gen.nets import cfm, compiled_cfm
from engines.s3gen.nets.compiled_cfm import compile_residuals, compile_transformers
from tests.engines.s3gen import small_nets


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("spec", [TINY, small_nets.GUIDED_TINY], ids=["meanflow", "guided"])
@pytest.mark.parametrize("rows", [([20], [30]), ([12, 5, 9], [8, 21, 2])])
def test_the_mel_is_torchs(rows: tuple[list[int], list[int]], spec: ModelSpec) -> None:
    plain, fast, batch = small_nets.flow(spec), small_nets.flow(spec), small_nets.flow_batch(*rows)
    assert compile_transformers(fast.solver.estimator) is None
    assert compile_residuals(fast.solver.estimator) is None
    inputs = small_nets.flow_inputs(batch, padded=len(rows[0]) > 1)
    expected = plain(*inputs)
    assert (fast(*inputs) - expected).abs().max() < 1e-4 * float(expected.std())


def test_its_own_blocks_are_given_up() -> None:
    net = small_nets.flow().solver.estimator
    assert compile_transformers(net) is None
    assert not [name for name in net.state_dict() if "attn1" in name]


@pytest.mark.skipif(not library.amx_supported(), reason="this machine has no AMX")
def test_its_own_residual_convolutions_are_given_up() -> None:
    net = small_nets.flow().solver.estimator
    assert compile_residuals(net) is None
    assert not [name for name in net.state_dict() if "res_conv" in name]


@pytest.mark.skipif(not library.amx_supported(), reason="this machine has no AMX")
def test_wrong_residual_convolutions_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    conv_pairs = library.conv_pairs
    monkeypatch.setattr(causal_residual, "conv_pairs", lambda weight: conv_pairs(1.01 * weight))
    assert "residual convolutions are off by" in (_stays_as_it_was(compile_residuals) or "")


def test_without_amx_torch_keeps_the_residual_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_cfm, "fit_amx", lambda *channels: False)
    assert _stays_as_it_was(compile_residuals) is None


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_cfm, "simd_widths", lambda: ())
    assert _stays_as_it_was() == library.MISSING


def test_wrong_blocks_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformer, "_LOG2_E", 1.3)
    assert "off by" in (_stays_as_it_was() or "")


def _stays_as_it_was(compile_blocks: Callable[[cfm.Estimator], str | None] = compile_transformers) -> str | None:
    """What it says."""
    net, inputs = small_nets.flow(), small_nets.flow_inputs(small_nets.flow_batch([5], [9]))
    expected = net(*inputs)
    why = compile_blocks(net.solver.estimator)
    assert torch.equal(net(*inputs), expected)
    return why
