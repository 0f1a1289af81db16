"""S3Gen on TensorRT: engines built ahead of time, double-buffered over three CUDA streams.

Driver and device are probed before anything is loaded: without them deserialising an engine crashes the process.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.checkpoints.checkpoint import Checkpoint
from engines.errors import EngineFailure
from engines.model_spec import FlowSpec
from engines.s3gen.export.export import Export, ExportSettings, export
from engines.s3gen.export.graphs import CFM, CFM_STEP, ENCODER, GRAPHS, VOCODER, Graph, Port
from engines.s3gen.flow_steps import steps_held
from engines.s3gen.gpu.buckets import buckets, choose_profile
from engines.s3gen.gpu.buffered import BufferedRuntime, Kernels
from engines.s3gen.gpu.build import BuildSettings, engine_folder, engine_graphs, identity
from engines.s3gen.gpu.cuda import CudaDevice
from engines.s3gen.gpu.double_buffer import Launch, Sizes
from engines.s3gen.gpu.engine_file import EngineFileRefused, find_engine
from engines.s3gen.gpu.solver import Solver
from engines.s3gen.gpu.trt import TensorRT, installed_flavours
from engines.s3gen.nets.cfm import EULER_TIMES, euler_times

_log = logging.getLogger(__name__)
# Weights in fp16 with what stays in fp32, and the scratch memory of the largest profile; part of S3Gen's share of a
# GPU in engines/t3/vllm/memory.py. Guidance adds what it adds there, the second lanes of a call.
ENGINE_BYTES, _GUIDANCE_BYTES = 1_900_000_000, 1_000_000_000


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
        flow = checkpoint.spec.flow
        graphs = engine_graphs(flow)
        made = export(checkpoint, ExportSettings(graphs, True, precision, 2), cache_dir=cache_dir)
        settings = BuildSettings(device.gpu.architecture, gpu=device.gpu.name, graphs=graphs)
        trt, paths = find_engines(
            made,
            engine_folder(cache_dir),
            settings,
            installed_flavours(flavour),
            model=str(checkpoint.folder),
            steps=str(flow.steps) if len(steps_held(checkpoint)) > 1 else "auto",
        )
        self._loaded = load_engines(paths, device, trt, euler_times(flow.guided_steps))
        super().__init__("tensorrt", device, self._loaded.kernels, depth=depth)
        _check_memory(self._loaded, engine_bytes(flow))

    @property
    def scratch_bytes(self) -> int:
        """The memory in which all engines compute."""
        return self._loaded.scratch_bytes

    @property
    def engine_bytes(self) -> int:
        """The size of all engines, nearly all of which are weights."""
        return self._loaded.weight_bytes

    @property
    def scratch_by_profile(self) -> dict[str, list[int]]:
        """The scratch memory that each profile of each engine asks for; they share what the largest needs."""
        return {name: engine.scratch_by_profile for name, engine in self._loaded.engines.items()}

    def keep_compiled(self) -> None:
        """Keep the kernels that TensorRT-RTX has compiled for this GPU, so that the next start is faster."""
        for engine in self._loaded.engines.values():
            engine.keep()


def find_engines(
    made: Export,
    folder: Path,
    settings: BuildSettings,
    flavours: Iterable[TensorRT],
    *,
    model: str,
    steps: str = "auto",
) -> tuple[TensorRT, dict[str, Path]]:
    """The first flavour of TensorRT whose engines are all in `folder`, and the engines by graph.

    Images that are built without a GPU have both flavours. Raises EngineFileRefused for the first flavour.
    """
    refusals: list[EngineFileRefused] = []
    for trt in flavours:
        try:
            wanted = {name: identity(made, name, settings, trt) for name in settings.graphs}
            return trt, {name: find_engine(folder, wanted[name], model=model, steps=steps) for name in settings.graphs}
        except EngineFileRefused as refused:
            refusals.append(refused)
    raise refusals[0]


@dataclass(frozen=True)
class Loaded:
    """Engines by graph, and their kernels. `scratch_bytes`: the memory in which all of them compute."""

    engines: Mapping[str, Engine]
    kernels: Kernels
    scratch_bytes: int
    weight_bytes: int


def load_engines(
    paths: Mapping[str, Path], device: CudaDevice, trt: TensorRT, times: Sequence[float] = EULER_TIMES
) -> Loaded:
    """Load the engines of a runtime. Raises EngineFailure if TensorRT refuses one. `times`: of the flow's Euler steps.

    Their contexts compute in one block of scratch memory, one after the other on one stream. TensorRT would otherwise
    allocate each context's maximum, and there is one for each profile and each captured graph.
    """
    engines = {name: Engine(path, GRAPHS[name], device, trt) for name, path in paths.items()}
    scratch_bytes = max(engine.scratch_bytes for engine in engines.values())
    scratch, compute = device.allocate(max(1, scratch_bytes)), device.stream()
    for engine in engines.values():
        engine.compute_in(scratch, scratch_bytes)
    encoder, vocoder = engines[ENCODER.name], engines[VOCODER.name]
    cfm = Solver(engines[CFM_STEP.name], times) if CFM_STEP.name in engines else engines[CFM.name]
    kernels = Kernels(Chain((encoder, cfm)), Chain((vocoder,)), Chain((encoder,)), Chain((cfm,)), compute)
    return Loaded(engines, kernels, scratch_bytes, sum(path.stat().st_size for path in paths.values()))


def engine_bytes(flow: FlowSpec) -> int:
    """What is planned for the engines of a model and their scratch memory."""
    return ENGINE_BYTES + (flow.lanes - 1) * _GUIDANCE_BYTES


def _check_memory(loaded: Loaded, planned: int) -> None:
    """Compare what the engines report with what the plan of a GPU's memory has for them."""
    needs = loaded.scratch_bytes + loaded.weight_bytes
    level = logging.INFO if needs <= planned else logging.WARNING
    _log.log(
        level,
        "TensorRT engines: %.0f MB of weights and %.0f MB of scratch memory; %.0f MB are planned",
        *(size / 1e6 for size in (loaded.weight_bytes, loaded.scratch_bytes, planned)),
    )


class Engine:
    """A deserialised engine, with one execution context per profile for eager calls.

    TensorRT-RTX compiles kernels for this GPU when they are first used; `keep` writes them beside the engine.
    """

    inner: tuple[Port, ...] = ()

    def __init__(self, path: Path, graph: Graph, device: CudaDevice, trt: TensorRT) -> None:
        self.graph, self.device = graph, device
        # TensorRT-RTX captures graphs itself, and may exchange kernels that a graph of ours would keep
        self.capturable = not trt.portable
        self._api = trt.module
        self._profiles = buckets(graph)
        self._runtime = trt.module.Runtime(trt.module.Logger(trt.module.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise EngineFailure(f"{path.name}: {trt.name} {trt.version} cannot load it on {device.gpu.name}.")
        self._compiled_path = path.with_suffix(".compiled")
        self._config = self._runtime_config() if trt.portable else None
        self._scratch = 0, 0
        self._contexts: list[Any] = []

    @property
    def scratch_bytes(self) -> int:
        """Scratch memory that a context needs, whatever its profile."""
        return int(self._engine.device_memory_size_v2)

    @property
    def scratch_by_profile(self) -> list[int]:
        """Scratch memory that each profile needs."""
        return [int(self._engine.get_device_memory_size_for_profile_v2(i)) for i in range(len(self._profiles))]

    def compute_in(self, address: int, size_bytes: int) -> None:
        """Make the contexts, on scratch memory that only one stream uses."""
        self._scratch = address, size_bytes
        self._contexts = [self._context(index) for index in range(len(self._profiles))]

    def _runtime_config(self) -> Any:
        """With the kernels that an earlier process compiled; TensorRT-RTX ignores those that no longer fit.

        Kernels for the shapes of a call are compiled before it runs: by default they are compiled beside it and
        exchanged later, which invalidates graphs.
        """
        api = self._api
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(api.ExecutionContextAllocationStrategy.USER_MANAGED)
        config.cuda_graph_strategy = api.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        config.dynamic_shapes_kernel_specialization_strategy = api.DynamicShapesKernelSpecializationStrategy.EAGER
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

    def _context(self, profile: int) -> Any:
        strategy = self._api.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(strategy if self._config is None else self._config)
        stream, event = self.device.stream(), self.device.event()
        if context is None or not context.set_optimization_profile_async(profile, int(stream)):
            raise EngineFailure(
                f"No execution context for {self.graph.name}, profile {profile}: is the GPU out of memory?"
            )
        self.device.record(event, stream)
        self.device.synchronize(event)  # a context may be used on another stream only once its profile is set
        context.set_device_memory(*self._scratch)
        return context

    def _profile_of(self, sizes: Sizes) -> int:
        return choose_profile(self._profiles, sizes["batch"], sizes[self.graph.time])

    def eager_context(self, sizes: Sizes) -> Any:
        """The context that eager calls of this size share with others."""
        return self._contexts[self._profile_of(sizes)]

    def own_context(self, sizes: Sizes) -> Any:
        """A new context, for one graph."""
        return self._context(self._profile_of(sizes))

    def bind(self, context: Any, addresses: Mapping[str, int], sizes: Sizes) -> None:
        """Set the shapes and the memory of a context's next calls."""
        for port in self.graph.inputs:
            context.set_input_shape(port.name, port.shape(sizes))
        for port in (*self.graph.inputs, *self.graph.outputs):
            context.set_tensor_address(port.name, addresses[port.name])

    def check_capturable(self, context: Any, stream: Any, sizes: Sizes) -> None:
        """Raises EngineFailure if the context says that its call cannot be captured; versions differ in whether it can
        be asked."""
        ask = getattr(context, "is_stream_capturable", None)
        if ask is not None and not ask(int(stream)):
            raise EngineFailure(f"TensorRT cannot capture {self.graph.name} at {dict(sizes)}.")

    def execute(self, context: Any, stream: Any, sizes: Sizes) -> None:
        """Enqueue a bound context's call. Raises EngineFailure."""
        if not context.execute_async_v3(int(stream)):
            raise EngineFailure(f"TensorRT refused to enqueue {self.graph.name} at {dict(sizes)}.")


class Chain:
    """Engines in sequence as a kernel of the double buffer; what one computes for the next stays on the device."""

    unpadded = False  # a call of another length costs the host more than its padding costs the GPU

    def __init__(self, engines: Sequence[Engine | Solver]) -> None:
        self._engines = tuple(engines)
        made = {port.name: port for engine in engines[:-1] for port in engine.graph.outputs}
        self.inner: tuple[Port, ...] = (*made.values(), *(port for engine in engines for port in engine.inner))
        read = {port.name: port for engine in engines for port in engine.graph.inputs if port.name not in made}
        self.inputs: tuple[Port, ...] = tuple(read.values())
        self.outputs: tuple[Port, ...] = engines[-1].graph.outputs

    def enqueue(self, stream: Any, addresses: Mapping[str, int], sizes: Sizes, *, full: bool = False) -> None:
        """As double_buffer.Kernel."""
        assert not full
        for engine in self._engines:
            context = engine.eager_context(sizes)
            engine.bind(context, addresses, sizes)
            engine.execute(context, stream, sizes)

    def capture(self, stream: Any, addresses: Mapping[str, int], sizes: Sizes) -> Launch | None:
        """As double_buffer.Kernel.

        Each graph has contexts of its own, which nothing else sets: TensorRT invalidates a graph when the state of its
        context changes. They run once before the capture, because the first call of a shape allocates.
        """
        if not all(engine.capturable for engine in self._engines):
            return None
        device = self._engines[0].device
        bound = [(engine, engine.own_context(sizes)) for engine in self._engines]
        for engine, context in bound:
            engine.bind(context, addresses, sizes)

        def execute() -> None:
            for engine, context in bound:
                engine.execute(context, stream, sizes)

        execute()
        ran = device.event()
        device.record(ran, stream)
        device.synchronize(ran)
        for engine, context in bound:
            engine.check_capturable(context, stream, sizes)
        graph = device.capture(stream, execute)
        return lambda: _launch(device, graph, stream, bound)


def _launch(device: CudaDevice, graph: Any, stream: Any, keep_alive: object) -> None:
    """Launch a graph; its contexts must live as long as it does."""
    del keep_alive
    device.launch(graph, stream)
