"""The compiled norms are torch's, and a row of several is what it is alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engines.kernels.library import simd_widths
from engines.kernels.norm import Norm
from engines.t3.norm import make_norm

pytestmark = pytest.mark.skipif(not simd_widths(), reason="the kernels are not compiled here")


def run(norm: Norm, x: Tensor) -> Tensor:
    out = torch.full_like(x, torch.nan)
    norm.run(x.data_ptr(), len(x), out.data_ptr())
    return out


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 9),
    vectors=st.integers(1, 70),
    size=st.sampled_from([1e-3, 1.0, 1e4]),
    off=st.sampled_from([0.0, 3.0]),
    seed=st.integers(0, 99),
)
def test_norms_are_torchs(rows: int, vectors: int, size: float, off: float, seed: int) -> None:
    channels, draw = 4 * vectors, torch.Generator().manual_seed(seed)
    x = size * (torch.randn(rows, channels, generator=draw) + off)
    factors, offsets = torch.randn(2, channels, generator=draw)
    layer = run(Norm(factors.numpy(), offsets.numpy(), 1e-5), x)
    torch.testing.assert_close(layer, F.layer_norm(x, (channels,), factors, offsets, 1e-5), atol=5e-5, rtol=1e-4)
    root = run(Norm(factors.numpy(), None, 1e-5), x)
    torch.testing.assert_close(root, F.rms_norm(x, (channels,), factors, 1e-5), atol=5e-5, rtol=1e-4)
    assert torch.equal(run(Norm(factors.numpy(), offsets.numpy(), 1e-5), x[-1:]), layer[-1:])


def test_nan_stays_in_its_row() -> None:
    norm = make_norm(torch.ones(32), torch.zeros(32), 1e-5)
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    before = norm(x)
    x[1, 5] = torch.nan
    after = norm(x)
    assert after[1].isnan().all()
    assert torch.equal(after[[0, 2]], before[[0, 2]])


def test_a_view_of_wider_rows_is_read_as_it_is() -> None:
    wide = torch.randn(4, 48, generator=torch.Generator().manual_seed(0))
    norm = make_norm(torch.ones(32), torch.zeros(32), 1e-5)
    torch.testing.assert_close(norm(wide[:, :32]), F.layer_norm(wide[:, :32], (32,)), atol=1e-5, rtol=1e-5)


def test_a_number_of_channels_that_is_not_whole_vectors() -> None:
    weight = torch.ones(6)
    with pytest.raises(ValueError, match="6 channels"):
        Norm(weight.numpy(), None, 1e-5)
    x = torch.tensor([[3.0, 0.0, 0.0, 0.0, 0.0, 4.0]])
    torch.testing.assert_close(make_norm(weight, None, 0.0)(x), x / x.square().mean().sqrt())
