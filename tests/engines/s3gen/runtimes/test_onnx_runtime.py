"""The ONNX Runtime runtime gives what the torch runtime gives, row by row, and fails loudly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engines.errors import InvalidInput
from engines.onnx.session import ProviderMissing
from engines.s3gen.runtimes.onnx import OnnxRuntime, cpu_graphs
from engines.s3gen.runtimes.torch import TorchRuntime
from tests.engines.s3gen.onnx_setting import checkpoint, flow_batch, vocoder_batch
from tests.engines.s3gen.small_nets import ROUNDING


@pytest.fixture(scope="module")
def onnx() -> OnnxRuntime:
    return OnnxRuntime(checkpoint(), threads=1)


@pytest.fixture(scope="module")
def torch() -> TorchRuntime:
    return TorchRuntime(checkpoint())


def test_graphs_that_were_exported_ahead_are_the_ones_that_are_run(tmp_path: Path) -> None:
    ahead = cpu_graphs(checkpoint(), cache_dir=tmp_path)
    before = sorted(ahead.folder.parent.iterdir())
    OnnxRuntime(checkpoint(), threads=1, cache_dir=tmp_path)
    assert sorted(ahead.folder.parent.iterdir()) == before


@pytest.mark.parametrize("lengths", [[9], [14, 14], [20, 6, 11]], ids=str)
def test_flow_equals_torch(onnx: OnnxRuntime, torch: TorchRuntime, lengths: list[int]) -> None:
    batch = flow_batch(lengths)
    ours, theirs = onnx.flow(batch), torch.flow(batch)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=ROUNDING * float(np.abs(theirs).max()))
    for row, length in enumerate(lengths):
        assert not ours[row, 2 * length :].any()


@pytest.mark.parametrize("lengths", [[2], [30, 30], [41, 16, 25]], ids=str)
def test_vocoder_equals_torch(onnx: OnnxRuntime, torch: TorchRuntime, lengths: list[int]) -> None:
    batch = vocoder_batch(lengths)
    ours, theirs = onnx.vocoder(batch), torch.vocoder(batch)
    for row, length in enumerate(lengths):
        end = 480 * length
        np.testing.assert_allclose(ours.waveform[row, :end], theirs.waveform[row, :end], atol=2e-4)
        np.testing.assert_allclose(ours.f0_hz[row, :length], theirs.f0_hz[row, :length], rtol=1e-5)


def test_results_are_the_callers_own(onnx: OnnxRuntime) -> None:
    first = onnx.flow(flow_batch([8]))
    before = first.copy()
    onnx.flow(flow_batch([8], seed=1))
    np.testing.assert_array_equal(first, before)


def test_foreign_provider_is_refused_before_anything_is_exported(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        OnnxRuntime(checkpoint(), providers=("rocm",), threads=1, cache_dir=tmp_path)
    with pytest.raises(InvalidInput):
        OnnxRuntime(checkpoint(), threads=0, cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_provider_that_is_not_here_is_named() -> None:
    with pytest.raises(ProviderMissing, match="cuda"):
        OnnxRuntime(checkpoint(), providers=("cuda", "cpu"), threads=1)
