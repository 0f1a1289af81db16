"""The compiled dense layer computes what torch's does: every shape, instruction set, precision and kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engines.kernels.dense import ADD, GELU, PLAIN, DenseLayer, halves_here
from engines.kernels.library import lanes_here

HERE = [(lanes, halves) for lanes in lanes_here() for halves in (False, True) if lanes >= 8 or not halves]


def run(layer: DenseLayer, x: Tensor, kind: int = PLAIN, residual: Tensor | None = None) -> Tensor:
    """x (rows, in), residual (rows, out) -> (rows, out)"""
    out = torch.full((len(x), layer.width), torch.nan)
    work = torch.full((layer.work_floats(len(x)),), torch.nan)
    beside = None if residual is None else F.pad(residual, (0, layer.width - layer.outputs))
    address = None if beside is None else beside.data_ptr()
    layer.run(x.data_ptr(), len(x), out.data_ptr(), work.data_ptr(), kind, address)
    return out[:, : layer.outputs]


@pytest.mark.parametrize(("lanes", "halves"), HERE)
@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 40),
    depth=st.integers(1, 600),
    outputs=st.integers(1, 90),
    threads=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_a_layer_is_torchs(
    lanes: int, halves: bool, rows: int, depth: int, outputs: int, threads: int, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(depth, outputs, generator=draw) / depth**0.5
    bias, x = torch.randn(outputs, generator=draw), torch.randn(rows, depth, generator=draw)
    residual = torch.randn(rows, outputs, generator=draw)
    layer = DenseLayer(weight.numpy(), bias.numpy(), threads, halves=halves, who="tests", lanes=lanes)
    kept = weight.half().float() if halves else weight
    expected = x @ kept + bias
    torch.testing.assert_close(run(layer, x), expected, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(run(layer, x, GELU), F.gelu(expected, approximate="tanh"), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(run(layer, x, ADD, residual), expected + residual, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(("lanes", "halves"), HERE)
def test_a_row_does_not_depend_on_its_companions(lanes: int, halves: bool) -> None:
    """But for the order of its sums, which changes where a call has more rows than registers."""
    draw = np.random.default_rng(0)
    weight, bias = draw.standard_normal((300, 64)).astype(np.float32), np.zeros(64, np.float32)
    layer = DenseLayer(weight, bias, 2, halves=halves, who="tests", lanes=lanes)
    x = torch.randn(30, 300, generator=torch.Generator().manual_seed(0))
    together = run(layer, x)
    alone = torch.cat([run(layer, row[None]) for row in x])
    torch.testing.assert_close(together, alone, atol=2e-4, rtol=1e-5)


@pytest.mark.parametrize(("lanes", "halves"), HERE)
def test_gelu_of_any_size(lanes: int, halves: bool) -> None:
    eye, nothing = np.eye(64, dtype=np.float32), np.zeros(64, np.float32)
    layer = DenseLayer(eye, nothing, 1, halves=halves, who="tests", lanes=lanes)
    x = torch.cat([torch.linspace(-60, 60, 640), torch.tensor([-1e30, 1e30, 0.0, torch.nan] * 16)]).reshape(-1, 64)
    got, expected = run(layer, x.nan_to_num(0.0), GELU), F.gelu(x.nan_to_num(0.0), approximate="tanh")
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)
    assert run(layer, x, GELU).isnan().any(), "a net that is not finite must be seen"


def test_halves_need_instructions_for_them() -> None:
    assert halves_here() == (lanes_here()[0] >= 8)
    with pytest.raises(ValueError, match="float16"):
        DenseLayer(np.ones((4, 4), np.float32), np.ones(4, np.float32), 1, halves=True, who="tests", lanes=4)
