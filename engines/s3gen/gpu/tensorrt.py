"""S3Gen on TensorRT: engines built ahead of time, double-buffered over three CUDA streams.

Driver and device are probed before anything is loaded: without them deserialising an engine crashes the process.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from engines.checkpoints.checkpoint import Checkpoint
from engines.errors import EngineFailure
from engines.s3gen.export.export import Export, ExportSettings, export
from engines.s3gen.export.graphs import CFM, ENCODER, GRAPHS, VOCODER, Graph, Port
from engines.s3gen.gpu.buckets import buckets, choose_profile
from engines.s3gen.gpu.buffered import BufferedRuntime, Kernels
from engines.s3gen.gpu.build import ENGINE_GRAPHS, BuildSettings, engine_folder, identity
from engines.s3gen.gpu.cuda import CudaDevice
from engines.s3gen.gpu.double_buffer import Sizes
from engines.s3gen.gpu.engine_file import EngineFileRefused, find_engine
from engines.s3gen.gpu.trt import TensorRT, installed_flavours

_log = logging.getLogger(__name__)


class TensorRTRuntime(BufferedRuntime):
    """A BufferedRuntime on engines. It must pass parity_check.validate before it serves.

    Raises CudaUnavailable without driver or device, TensorRTMissing, ExportError, and EngineFileRefused, which names
    the command that builds the missing engines.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        cache_dir: Path | None = None,
        precision: str = "fp16",
        device_index: int = 0,
        flavour: str | None = None,
        depth: int = 2,
    ) -> None:
        device = CudaDevice(device_index)
        made = export(checkpoint, ExportSettings(ENGINE_GRAPHS, True, precision, 2), cache_dir=cache_dir)
        settings = BuildSettings(device.gpu.architecture)
        trt, paths = find_engines(
            made, engine_folder(cache_dir), settings, installed_flavours(flavour), model=str(checkpoint.folder)
        )
        self._engines = {name: _Engine(path, GRAPHS[name], device, trt) for name, path in paths.items()}
        encoder, cfm, vocoder = (self._engines[graph.name] for graph in (ENCODER, CFM, VOCODER))
        kernels = Kernels(_FlowKernel(encoder, cfm), vocoder, encoder, cfm)
        super().__init__("tensorrt", device, kernels, depth=depth)

    def keep_compiled(self) -> None:
        """Keep the kernels that TensorRT-RTX has compiled for this GPU, so that the next start is faster."""
        for engine in self._engines.values():
            engine.keep()


def find_engines(
    made: Export, folder: Path, settings: BuildSettings, flavours: Iterable[TensorRT], *, model: str
) -> tuple[TensorRT, dict[str, Path]]:
    """The first flavour of TensorRT whose engines are all in `folder`, and the engines by graph.

    Images that are built without a GPU have both flavours. Raises EngineFileRefused for the first flavour.
    """
    refusals: list[EngineFileRefused] = []
    for trt in flavours:
        try:
            wanted = {name: identity(made, name, settings, trt) for name in ENGINE_GRAPHS}
            return trt, {name: find_engine(folder, wanted[name], model=model) for name in ENGINE_GRAPHS}
        except EngineFileRefused as refused:
            refusals.append(refused)
    raise refusals[0]


class _Engine:
    """A deserialised engine with one execution context per profile; a kernel of the double buffer.

    TensorRT-RTX compiles kernels for this GPU when they are first used; `keep` writes them beside the engine.
    """

    capturable = True
    inner: tuple[Port, ...] = ()

    def __init__(self, path: Path, graph: Graph, device: CudaDevice, trt: TensorRT) -> None:
        self.graph = graph
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self._profiles = buckets(graph)
        self._runtime = trt.module.Runtime(trt.module.Logger(trt.module.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise EngineFailure(f"{path.name}: {trt.name} {trt.version} cannot load it on {device.gpu.name}.")
        self._compiled_path = path.with_suffix(".compiled")
        self._config = self._runtime_config() if trt.portable else None
        stream, event = device.stream(), device.event()
        self._contexts = [self._context(index, stream) for index in range(len(self._profiles))]
        device.record(event, stream)
        device.synchronize(event)  # a context may be used on another stream only once its profile is set

    def _runtime_config(self) -> Any:
        """With the kernels that an earlier process compiled; TensorRT-RTX ignores those that no longer fit."""
        config = self._engine.create_runtime_config()
        cache = config.create_runtime_cache()
        if self._compiled_path.is_file():
            cache.deserialize(self._compiled_path.read_bytes())
        config.set_runtime_cache(cache)
        return config

    def keep(self) -> None:
        """Write the kernels compiled so far to disk; if that fails, the next start compiles them again."""
        if self._config is None:
            return
        partial = self._compiled_path.with_suffix(".partial")
        try:
            partial.write_bytes(memoryview(self._config.get_runtime_cache().serialize()))
            partial.replace(self._compiled_path)
        except OSError as error:
            _log.warning("%s: compiled kernels are not kept: %s", self._compiled_path, error)

    def _context(self, profile: int, stream: Any) -> Any:
        chosen = () if self._config is None else (self._config,)
        context = self._engine.create_execution_context(*chosen)
        if context is None or not context.set_optimization_profile_async(profile, int(stream)):
            raise EngineFailure(
                f"No execution context for {self.graph.name}, profile {profile}: is the GPU out of memory?"
            )
        return context

    def enqueue(self, stream: Any, addresses: Mapping[str, int], sizes: Sizes) -> None:
        context = self._contexts[choose_profile(self._profiles, sizes["batch"], sizes[self.graph.time])]
        for port in self.inputs:
            context.set_input_shape(port.name, port.shape(sizes))
        for port in (*self.inputs, *self.outputs):
            context.set_tensor_address(port.name, addresses[port.name])
        if not context.execute_async_v3(int(stream)):
            raise EngineFailure(f"TensorRT refused to enqueue {self.graph.name} at {dict(sizes)}.")


class _FlowKernel:
    """Encoder and CFM in sequence; the encoder's outputs stay on the device."""

    capturable = True

    def __init__(self, encoder: _Engine, cfm: _Engine) -> None:
        self._engines = (encoder, cfm)
        self.inner: tuple[Port, ...] = ENCODER.outputs
        between = {port.name for port in self.inner}
        self.inputs = (*ENCODER.inputs, *(port for port in CFM.inputs if port.name not in between))
        self.outputs = CFM.outputs

    def enqueue(self, stream: Any, addresses: Mapping[str, int], sizes: Sizes) -> None:
        for engine in self._engines:
            engine.enqueue(stream, addresses, sizes)
