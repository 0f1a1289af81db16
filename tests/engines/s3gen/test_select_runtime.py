"""Which runtime serves on which device, and what it is compared with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from engines.config import S3GEN_RUNTIMES, EngineConfig
from engines.s3gen import select_runtime as module
from engines.s3gen.gpu import tensorrt
from engines.s3gen.parity_check import RuntimeRefused
from engines.s3gen.runtimes import onnx
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.s3gen.select_runtime import ReferenceRuntime, runtime_order, select_runtime
from tests.engines.s3gen.onnx_setting import checkpoint, vocoder_batch


@pytest.mark.parametrize("name", S3GEN_RUNTIMES)
@pytest.mark.parametrize("decode", ["reference", "cached"])
def test_no_gpu_falls_back_to_a_runtime_that_was_not_asked_for_and_computes_on_the_cpu(name: str, decode: str) -> None:
    if decode == "cached" and name == "tensorrt":
        return  # refused before
    order = runtime_order(EngineConfig(s3gen=name, decode=decode), "cuda:0")
    assert order
    assert not {"onnx", "onnx-cached"} & set(order[1:])
    assert order[-1].startswith("torch")


class Made(Exception):
    """Ends the choice when the last runtime is made."""


def test_a_gpu_whose_tensorrt_is_refused_serves_with_torchs_graphs_then_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def refusing(name: str) -> Any:
        def make(*_: object, **options: Any) -> Any:
            tried.append(name)
            raise RuntimeError(f"no {name}")

        return make

    made: list[str] = []

    def torch_runtime(*_: object, device: str = "cpu", **options: Any) -> Any:
        made.append(device)
        return TorchRuntime(checkpoint())

    monkeypatch.setattr(tensorrt, "TensorRTRuntime", refusing("tensorrt"))
    monkeypatch.setattr(module, "TorchGraphedRuntime", refusing("torch_graphs"))
    monkeypatch.setattr(onnx, "OnnxRuntime", refusing("onnx"))
    monkeypatch.setattr(module, "TorchRuntime", torch_runtime)
    monkeypatch.setattr(module, "isinstance", lambda runtime, kind: False, raising=False)
    chosen = select_runtime(EngineConfig(s3gen="tensorrt"), checkpoint(), "cuda:0")
    assert tried == ["tensorrt", "torch_graphs"]
    assert [name for name, _ in chosen.refused] == ["tensorrt", "torch_graphs"]
    assert made == ["cpu", "cuda:0"], "torch on the GPU was compared with torch on the CPU"


def test_torch_on_a_gpu_is_compared_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """It decodes rejected windows and is every other runtime's judge."""

    class Coarse(TorchRuntime):
        def flow(self, batch: Any) -> Any:
            return super().flow(batch) * 1.01

    def made(*_: object, device: str = "cpu", **options: Any) -> Any:
        return Coarse(checkpoint()) if device == "cuda" else TorchRuntime(checkpoint())

    monkeypatch.setattr(module, "TorchRuntime", made)
    with pytest.raises(RuntimeRefused, match="differs from torch on the CPU"):
        select_runtime(EngineConfig(s3gen="torch"), checkpoint(), "cuda")


def test_the_reference_is_loaded_again_when_it_is_needed() -> None:
    reference = ReferenceRuntime(checkpoint(), "cpu")
    first = reference.loaded
    assert reference.loaded is first
    reference.unload()
    assert reference._loaded is None
    assert reference.vocoder(vocoder_batch([20])).waveform.shape == (1, 9600)


def test_tf32_is_what_the_parity_check_would_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """The vocoder with inputs and weights of convolutions in ten bits: why TF32 is off."""
    exact = TorchRuntime(checkpoint())
    coarse = TorchRuntime(checkpoint(), dtype=torch.float32)
    batch = vocoder_batch([40])
    expected = exact.vocoder(batch).waveform
    for name in ("conv1d", "conv_transpose1d"):
        real = getattr(F, name)
        monkeypatch.setattr(
            F, name, lambda x, w, *rest, real=real, **options: real(_ten_bits(x), _ten_bits(w), *rest, **options)
        )
    got = coarse.vocoder(batch).waveform
    difference = abs(got - expected).reshape(40, 480).max() / abs(expected).max()
    assert difference > 1e-4


def _ten_bits(values: torch.Tensor) -> torch.Tensor:
    bits = values.contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


def test_cached_decoding_on_a_gpu_is_graphs_first_and_on_a_cpu_has_none() -> None:
    cached = EngineConfig(decode="cached")
    assert runtime_order(cached, "cuda:0") == ("torch_graphs-cached", "torch-cached")
    assert runtime_order(cached, "cpu") == ("torch-cached",)
