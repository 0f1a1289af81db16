"""The choice of S3Gen's runtime: the configured one if it passes its parity check on this machine, else the next.

Torch in float32 is the reference and needs no check.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from engines.checkpoints.checkpoint import Checkpoint
from engines.config import EngineConfig
from engines.device import cpu_threads
from engines.s3gen.gpu.tensorrt import TensorRTRuntime
from engines.s3gen.gpu.torch_graphed import TorchGraphedRuntime
from engines.s3gen.parity_check import COMPOSITIONS, GPU_COMPOSITIONS, Candidate, select_first_valid
from engines.s3gen.runtime import Runtime
from engines.s3gen.runtimes.onnx import OnnxRuntime
from engines.s3gen.runtimes.onnx_cached import OnnxCachedRuntime
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.s3gen.runtimes.torch_cached import TorchCachedRuntime

# the next is tried if the one before it is refused
_ORDER = {
    "auto": ("torch",),
    "torch": ("torch",),
    "torch_graphs": ("torch_graphs", "torch"),
    "onnx": ("onnx", "torch"),
    "tensorrt": ("tensorrt", "onnx", "torch"),
}


@dataclass(frozen=True)
class Chosen:
    """`reference` is torch in float32, for windows that a guard rejects. `refused` are (runtime, reason)."""

    runtime: Runtime
    reference: Runtime
    refused: tuple[tuple[str, str], ...]


def select_runtime(config: EngineConfig, checkpoint: Checkpoint, device: str) -> Chosen:
    """Try the runtime of `config`, then its fallbacks.

    Raises RuntimeRefused if none passes, or, with `config.strict`, if the first does not; CheckpointError.
    """
    reference = TorchRuntime(checkpoint, device=device)
    names = [f"{name}-cached" if config.decode == "cached" else name for name in _ORDER[config.s3gen]]
    refused: list[tuple[str, str]] = []
    makers = _Makers(config, checkpoint, device, reference)
    runtime = select_first_valid(
        [makers.candidate(name) for name in names],
        strict=config.strict,
        on_refusal=lambda name, why: refused.append((name, why)),
    )
    if isinstance(runtime, TensorRTRuntime):
        runtime.keep_compiled()  # the parity check has just used every bucket
    return Chosen(runtime, reference, tuple(refused))


class _Makers:
    """Makes the runtimes of one configuration."""

    def __init__(self, config: EngineConfig, checkpoint: Checkpoint, device: str, reference: TorchRuntime) -> None:
        self._config, self._checkpoint, self._reference = config, checkpoint, reference
        self._gpu = int(device.partition(":")[2] or 0)
        self._threads = config.threads or cpu_threads()

    def candidate(self, name: str) -> Candidate:
        """The graphs in float32 on the CPU are the reference of every other runtime, and torch is theirs."""
        config = self._config
        if name == "torch":
            return Candidate(name, lambda: self._reference)
        if name == "torch-cached":
            return Candidate(name, self._torch_cached)
        if name == "onnx-cached":
            return Candidate(name, self._onnx_cached, self._torch_cached)
        half = config.s3gen_dtype == "float16"
        if name == "torch_graphs":
            return self._on_streams(name, lambda: self._torch_graphs(half), half)
        if name == "tensorrt":
            half = config.s3gen_dtype != "float32"
            return self._on_streams(name, lambda: self._tensorrt(half), half)
        precision = "fp16" if half else "fp32"
        on_cpu = config.providers == ("cpu",)
        reference = self._reference if on_cpu and not half else None  # has the vocoder, and is the reference
        return Candidate(
            name,
            lambda: self._onnx(config.providers, precision, reference),
            (lambda: reference) if reference else self._fp32_graphs,
            precision="fp16" if half or config.provider_fp16 else "fp32",
            compositions=COMPOSITIONS if on_cpu else GPU_COMPOSITIONS,
        )

    def _on_streams(self, name: str, make: Callable[[], Runtime], half: bool) -> Candidate:
        precision = "fp16" if half else "fp32"
        return Candidate(name, make, self._fp32_graphs, precision=precision, compositions=GPU_COMPOSITIONS)

    def _torch_cached(self) -> TorchCachedRuntime:
        return TorchCachedRuntime(self._reference)

    def _onnx_cached(self) -> OnnxCachedRuntime:
        return OnnxCachedRuntime(
            self._checkpoint,
            self._reference,
            threads=self._threads,
            providers=self._config.providers,
            cache_dir=self._config.cache_dir,
        )

    def _fp32_graphs(self) -> Runtime:
        return self._onnx(("cpu",), "fp32")

    def _onnx(self, providers: tuple[str, ...], precision: str, vocoder: Runtime | None = None) -> OnnxRuntime:
        return OnnxRuntime(
            self._checkpoint,
            providers=providers,
            threads=self._threads,
            cache_dir=self._config.cache_dir,
            precision=precision,
            device_id=self._gpu,
            trt_fp16=self._config.provider_fp16,
            trt_cache_dir=self._config.provider_cache_dir,
            vocoder=vocoder,
        )

    def _tensorrt(self, half: bool) -> TensorRTRuntime:
        precision = "fp16" if half else "fp32"
        return TensorRTRuntime(
            self._checkpoint, cache_dir=self._config.cache_dir, precision=precision, device_index=self._gpu
        )

    def _torch_graphs(self, half: bool) -> TorchGraphedRuntime:
        dtype = torch.float16 if half else torch.float32
        return TorchGraphedRuntime(self._checkpoint, dtype=dtype, device_index=self._gpu)
