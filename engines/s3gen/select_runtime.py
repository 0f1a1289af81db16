"""The choice of S3Gen's runtime: the configured one if it passes its parity check on this machine, else the next.

Torch in float32 is the reference. On the CPU it needs no check; on a GPU it is compared with torch on the CPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from engines.checkpoints.checkpoint import Checkpoint
from engines.config import EngineConfig
from engines.device import S3GEN_PRIORITY, CudaGraphs, cpu_threads, use_exact_float32
from engines.s3gen.gpu.buffered import BufferedRuntime
from engines.s3gen.gpu.cached_graphs import GraphedCachedRuntime
from engines.s3gen.gpu.torch_graphed import TorchGraphedRuntime
from engines.s3gen.parity_check import (
    COMPOSITIONS,
    GPU_COMPOSITIONS,
    GPU_ROUNDS,
    LARGEST_COMPOSITIONS,
    Candidate,
    RuntimeRefused,
    select_first_valid,
    validate,
)
from engines.s3gen.runtime import F32, FlowBatch, Runtime, VocoderBatch, VocoderResult
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.s3gen.runtimes.torch_cached import TorchCachedRuntime

if TYPE_CHECKING:  # they need ONNX or its runtime, which a GPU server may do without
    from engines.s3gen.gpu.tensorrt import TensorRTRuntime
    from engines.s3gen.runtimes.onnx import OnnxRuntime
    from engines.s3gen.runtimes.onnx_cached import OnnxCachedRuntime

# the next is tried if the one before it is refused
_ON_CPU = {
    "auto": ("torch",),
    "torch": ("torch",),
    "torch_graphs": ("torch_graphs", "torch"),
    "onnx": ("onnx", "torch"),
    "tensorrt": ("tensorrt", "onnx", "torch"),
}
# never one that computes on the CPU: a window would take seconds, for as many streams as a GPU carries
_ON_GPU = {
    "auto": ("torch_graphs", "torch"),
    "torch": ("torch",),
    "torch_graphs": ("torch_graphs", "torch"),
    "onnx": ("onnx", "torch_graphs", "torch"),
    "tensorrt": ("tensorrt", "torch_graphs", "torch"),
}


@dataclass(frozen=True)
class Chosen:
    """`reference` is torch in float32, for windows that a guard rejects. `refused` are (runtime, reason)."""

    runtime: Runtime
    reference: Runtime
    refused: tuple[tuple[str, str], ...]


def select_runtime(
    config: EngineConfig, checkpoint: Checkpoint, device: str, reference: ReferenceRuntime | None = None
) -> Chosen:
    """Try the runtime of `config`, then its fallbacks. `reference`: one that is loaded already.

    Raises RuntimeRefused if none passes, or, with `config.strict`, if the first does not; CheckpointError.
    """
    refused: list[tuple[str, str]] = []
    makers = _Makers(config, checkpoint, device, reference or ReferenceRuntime(checkpoint, device))
    runtime = select_first_valid(
        [makers.candidate(name) for name in runtime_order(config, device)],
        strict=config.strict,
        on_refusal=lambda name, why: refused.append((name, why)),
    )
    if isinstance(runtime, GraphedCachedRuntime):
        makers.reference.unload()
    if isinstance(runtime, BufferedRuntime):
        makers.reference.unload()  # it is rarely needed, and then loaded again
        runtime.keep_compiled()  # the parity check has just used every bucket
    return Chosen(runtime, makers.reference, tuple(refused))


def runtime_order(config: EngineConfig, device: str) -> tuple[str, ...]:
    """The runtimes to try, in order."""
    names = (_ON_GPU if device.startswith("cuda") else _ON_CPU)[config.s3gen]
    if config.decode != "cached":
        return names
    return tuple(f"{name}-cached" for name in names if name != "torch_graphs" or device.startswith("cuda"))


class ReferenceRuntime:
    """Torch in float32, loaded when it is first used and again after `unload`. Used by one thread at a time."""

    name = "torch"

    def __init__(self, checkpoint: Checkpoint, device: str) -> None:
        self._checkpoint, self._device = checkpoint, device
        self._lock = threading.Lock()
        self._loaded: TorchRuntime | None = None

    @property
    def loaded(self) -> TorchRuntime:
        """The runtime itself. Raises CheckpointError."""
        with self._lock:
            if self._loaded is None:
                self._loaded = TorchRuntime(self._checkpoint, device=self._device)
            return self._loaded

    def unload(self) -> None:
        """Free its memory."""
        with self._lock:
            self._loaded = None
        if self._device != "cpu" and torch.cuda.is_available():
            torch.cuda.empty_cache()

    @property
    def cfm_s(self) -> float | None:
        """As Runtime.cfm_s."""
        return self.loaded.cfm_s

    def flow(self, batch: FlowBatch) -> F32:
        """As Runtime.flow."""
        return self.loaded.flow(batch)

    def vocoder(self, batch: VocoderBatch) -> VocoderResult:
        """As Runtime.vocoder."""
        return self.loaded.vocoder(batch)


class _Makers:
    """Makes the runtimes of one configuration."""

    def __init__(self, config: EngineConfig, checkpoint: Checkpoint, device: str, reference: ReferenceRuntime) -> None:
        self._config, self._checkpoint = config, checkpoint
        self._on_gpu = device.startswith("cuda")
        self._gpu = int(device.partition(":")[2] or 0)
        self._threads = config.threads or cpu_threads()
        if self._on_gpu:
            use_exact_float32()
        self.reference = reference
        if not self._on_gpu:
            self.reference.loaded  # noqa: B018  # a fault of the checkpoint is an error before any fallback

    def candidate(self, name: str) -> Candidate:
        """Every other runtime is compared with torch on its own device, or on the CPU with the float32 graphs."""
        config = self._config
        if name == "torch":
            return Candidate(name, lambda: self._reference)
        if name == "torch-cached":
            return Candidate(name, self._torch_cached)
        if name == "torch_graphs-cached":
            half = config.s3gen_dtype != "float32"
            return Candidate(
                name,
                lambda: self._graphed_cached(half),
                self._torch_cached,
                precision="fp16" if half else "fp32",
                rounds=GPU_ROUNDS,
            )
        if name == "onnx-cached":
            return Candidate(name, self._onnx_cached, self._torch_cached)
        half = config.s3gen_dtype == "float16"
        if name in ("torch_graphs", "tensorrt"):
            half = config.s3gen_dtype != "float32"
            make = self._torch_graphs if name == "torch_graphs" else self._tensorrt
            return self._on_streams(name, lambda: _prepared(make(half)), half)
        precision = "fp16" if half else "fp32"
        on_cpu = config.providers == ("cpu",)
        reference = self._reference if on_cpu and not half else None  # has the vocoder, and is the reference
        return Candidate(
            name,
            lambda: self._onnx(config.providers, precision, reference),
            (lambda: reference) if reference else self._trusted,
            precision="fp16" if half or config.provider_fp16 else "fp32",
            compositions=COMPOSITIONS if on_cpu else GPU_COMPOSITIONS,
        )

    def _on_streams(self, name: str, make: Callable[[], Runtime], half: bool) -> Candidate:
        return Candidate(
            name,
            make,
            self._trusted,
            precision="fp16" if half else "fp32",
            compositions=GPU_COMPOSITIONS,
            rounds=GPU_ROUNDS,
            once=LARGEST_COMPOSITIONS,
        )

    @cached_property
    def _reference(self) -> TorchRuntime:
        """The reference, after its own check on a GPU. Raises RuntimeRefused."""
        if self._on_gpu:
            on_cpu = TorchRuntime(self._checkpoint)
            report = validate(self.reference, on_cpu, precision="fp32", compositions=COMPOSITIONS)
            if not report.passed:
                raise RuntimeRefused(f"torch on this GPU differs from torch on the CPU: {report}")
        return self.reference.loaded

    def _trusted(self) -> Runtime:
        return self._reference if self._on_gpu else self._onnx(("cpu",), "fp32")

    def _torch_cached(self) -> TorchCachedRuntime:
        return TorchCachedRuntime(self._reference)

    def _graphed_cached(self, half: bool) -> GraphedCachedRuntime:
        graphs = self._torch_graphs(half)
        graphs.prepare()  # for the vocoder, and for windows without caches
        nets = TorchRuntime(
            self._checkpoint,
            device=f"cuda:{self._gpu}",
            dtype=torch.float16 if half else torch.float32,
        )
        runtime = GraphedCachedRuntime(nets, uncached=graphs)
        runtime.prepare(CudaGraphs(torch.device("cuda", self._gpu), S3GEN_PRIORITY))
        return runtime

    def _onnx_cached(self) -> OnnxCachedRuntime:
        from engines.s3gen.runtimes.onnx_cached import OnnxCachedRuntime

        return OnnxCachedRuntime(
            self._checkpoint,
            self._reference,
            threads=self._threads,
            providers=self._config.providers,
            cache_dir=self._config.cache_dir,
        )

    def _onnx(self, providers: tuple[str, ...], precision: str, vocoder: Runtime | None = None) -> OnnxRuntime:
        from engines.s3gen.runtimes.onnx import OnnxRuntime

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
        from engines.s3gen.gpu.tensorrt import TensorRTRuntime

        precision = "fp16" if half else "fp32"
        return TensorRTRuntime(
            self._checkpoint, cache_dir=self._config.cache_dir, precision=precision, device_index=self._gpu
        )

    def _torch_graphs(self, half: bool) -> TorchGraphedRuntime:
        dtype = torch.float16 if half else torch.float32
        return TorchGraphedRuntime(self._checkpoint, dtype=dtype, device_index=self._gpu)


def _prepared(runtime: BufferedRuntime) -> BufferedRuntime:
    """With its graphs captured, so that the parity check replays them."""
    runtime.prepare()
    return runtime
