"""A flow with compiled transformer blocks says what it says without; where they cannot stand in, it says why."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from engines.kernels import library, transformer
from engines.model_spec import TINY, ModelSpec
from engines.s3gen.nets import compiled_cfm
from engines.s3gen.nets.compiled_cfm import compile_transformers
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
    inputs = small_nets.flow_inputs(batch, padded=len(rows[0]) > 1)
    expected = plain(*inputs)
    assert (fast(*inputs) - expected).abs().max() < 1e-4 * float(expected.std())


def test_its_own_blocks_are_given_up() -> None:
    net = small_nets.flow().solver.estimator
    assert compile_transformers(net) is None
    assert not [name for name in net.state_dict() if "attn1" in name]


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_cfm, "simd_widths", lambda: ())
    assert _stays_as_it_was() == library.MISSING


def test_wrong_blocks_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformer, "_LOG2_E", 1.3)
    assert "off by" in (_stays_as_it_was() or "")


def _stays_as_it_was() -> str | None:
    """What it says."""
    net, inputs = small_nets.flow(), small_nets.flow_inputs(small_nets.flow_batch([5], [9]))
    expected = net(*inputs)
    why = compile_transformers(net.solver.estimator)
    assert torch.equal(net(*inputs), expected)
    return why
