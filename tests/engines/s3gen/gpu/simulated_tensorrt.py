"""A simulated TensorRT on the simulated GPU: the modules `tensorrt` and `tensorrt_rtx`, with their rules on contexts.

Rules: the first enqueue after a change of shapes allocates, so it fails in a capture. A graph computes garbage once the
context that it was captured from has changed. A context that manages no memory of its own needs some before it is used,
and two calls that use the same scratch memory at the same time destroy each other's results. An engine that was not
built to need none allocates in every enqueue. A speech token outside the table is an illegal address.

The "engines" are small functions with the ports of the real graphs. Rows do not see each other, nor their padding.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from enum import Enum, IntEnum
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from engines.model_spec import SPEECH_CODES
from engines.s3gen.export.graphs import CFM, CFM_STEP, ENCODER, GRAPHS, VOCODER, Graph, Port
from engines.s3gen.gpu.buckets import buckets
from engines.s3gen.gpu.build import ENGINE_GRAPHS
from engines.s3gen.gpu.trt import TensorRT
from engines.s3gen.runtime import F32, FlowBatch, VocoderBatch, VocoderResult
from tests.engines.s3gen.gpu.simulated_cuda import SimulatedCuda

Values = dict[str, np.ndarray]
SCRATCH_BYTES = 4096


def encode(inputs: Values) -> Values:
    """The encoder: a mel of tokens and voice, zero behind a row's length."""
    tokens = np.repeat(inputs["tokens"], 2, axis=1).astype(np.float32)
    valid = np.arange(tokens.shape[1]) < 2 * inputs["token_lengths"][:, None]
    bands = np.linspace(-1, 1, 80, dtype=np.float32)
    mu = np.where(valid[..., None], np.sin(tokens)[..., None] * bands, 0).astype(np.float32)
    return {"mu": mu, "speaker": inputs["x_vector"][:, :80].astype(np.float32)}


def solve(inputs: Values) -> Values:
    """The CFM: noise plus everything it is conditioned on."""
    valid = np.arange(inputs["noise"].shape[1]) < inputs["lengths"][:, None]
    mel = inputs["noise"] + 2 * inputs["mu"] + inputs["speaker"][:, None] + 0.1 * inputs["prompt_mel"]
    return {"mel": np.where(valid[..., None], mel, 0).astype(np.float32)}


def step(inputs: Values) -> Values:
    """One Euler step: part of the way to what `solve` gives, and a little beside it that depends on the times."""
    t, r = (inputs[name][:, None, None] for name in ("t", "r"))
    there = solve({**inputs, "noise": np.zeros_like(inputs["x"])})["mel"]
    valid = np.arange(there.shape[1]) < inputs["lengths"][:, None]
    moved = inputs["x"] + (r - t) * (there + np.sin(7 * t) - 0.5 * inputs["x"])
    return {"next_x": np.where(valid[..., None], moved, 0).astype(np.float32)}


def solve_in_steps(inputs: Values, times: Sequence[float]) -> Values:
    """All steps."""
    x = inputs["noise"]
    for t, r in pairwise(times):
        each = {name: np.full(len(x), time, np.float32) for name, time in (("t", t), ("r", r))}
        x = step({**inputs, **each, "x": x})["next_x"]
    return {"mel": x}


def render(inputs: Values) -> Values:
    """The vocoder: louder where the mel is."""
    level = np.repeat(inputs["mel"].mean(-1), 480, axis=1)
    waveform = inputs["noise"] * level + inputs["phase_cycles"][:, None] + inputs["harmonic_cycles"].sum(1)[:, None]
    return {"waveform": waveform.astype(np.float32), "f0_hz": inputs["fixed_f0_hz"].astype(np.float32)}


FUNCTIONS: dict[str, Callable[[Values], Values]] = {
    ENCODER.name: encode,
    CFM.name: solve,
    CFM_STEP.name: step,
    VOCODER.name: render,
}


class DirectRuntime:
    """The same functions as a Runtime without a device. `times`: of Euler steps that are calls of their own."""

    name = "direct"
    cfm_s = None

    def __init__(self, times: Sequence[float] = ()) -> None:
        self._times = times

    def flow(self, batch: FlowBatch) -> F32:
        inputs = {**vars(batch), "lengths": 2 * batch.token_lengths}
        inputs |= encode(inputs)
        return (solve_in_steps(inputs, self._times) if self._times else solve(inputs))["mel"]

    def vocoder(self, batch: VocoderBatch) -> VocoderResult:
        return VocoderResult(**render(vars(batch)))


class Strategy(Enum):
    """ExecutionContextAllocationStrategy."""

    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class CudaGraphStrategy(Enum):
    DISABLED = 0
    WHOLE_GRAPH_CAPTURE = 1


class Specialization(Enum):
    """DynamicShapesKernelSpecializationStrategy."""

    LAZY = 0
    EAGER = 1
    NONE = 2


class Logger:
    class Severity(IntEnum):
        ERROR = 1

    ERROR = Severity.ERROR

    def __init__(self, severity: object) -> None: ...


class SimulatedTensorRT:
    """One flavour on a simulated GPU. `flavour` is what load_engines takes."""

    def __init__(self, cuda: SimulatedCuda, *, rtx: bool = False, user_allocation: bool = True) -> None:
        self.cuda, self.rtx, self.user_allocation = cuda, rtx, user_allocation
        self.contexts: list[Context] = []
        module = SimpleNamespace(
            __version__="1.0",
            Logger=Logger,
            Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=self._deserialize),
            ExecutionContextAllocationStrategy=Strategy,
            CudaGraphStrategy=CudaGraphStrategy,
            DynamicShapesKernelSpecializationStrategy=Specialization,
        )
        self.flavour = TensorRT("tensorrt_rtx" if rtx else "tensorrt", module)
        self.static_bytes = 0  # that contexts allocated for themselves

    def engine_files(self, folder: Path, graphs: Sequence[str] = ENGINE_GRAPHS) -> dict[str, Path]:
        """Files that it can load, by graph."""
        paths = {name: folder / f"{name}.engine" for name in graphs}
        for name, path in paths.items():
            path.write_text(name)
        return paths

    def _deserialize(self, serialized: bytes) -> SimulatedEngine:
        return SimulatedEngine(self, GRAPHS[serialized.decode()])


class RuntimeConfig:
    """IRuntimeConfig of TensorRT-RTX, with its defaults."""

    def __init__(self) -> None:
        self.cuda_graph_strategy = CudaGraphStrategy.DISABLED
        self.dynamic_shapes_kernel_specialization_strategy = Specialization.LAZY
        self.allocation = Strategy.STATIC
        self._cache: Any = None

    def set_execution_context_allocation_strategy(self, strategy: Strategy) -> None:
        self.allocation = strategy

    def create_runtime_cache(self) -> Any:
        return SimpleNamespace(deserialize=lambda data: True, serialize=lambda: b"compiled")

    def set_runtime_cache(self, cache: Any) -> None:
        self._cache = cache

    def get_runtime_cache(self) -> Any:
        return self._cache


class SimulatedEngine:
    """ICudaEngine."""

    device_memory_size_v2 = SCRATCH_BYTES

    def __init__(self, trt: SimulatedTensorRT, graph: Graph) -> None:
        self.trt, self.graph = trt, graph

    def create_runtime_config(self) -> RuntimeConfig:
        assert self.trt.rtx
        return RuntimeConfig()

    def create_execution_context(self, strategy: Strategy | RuntimeConfig = Strategy.STATIC) -> Context:
        config = strategy if isinstance(strategy, RuntimeConfig) else None
        allocation = config.allocation if config else strategy
        if allocation is not Strategy.USER_MANAGED:
            self.trt.static_bytes += SCRATCH_BYTES
        context = Context(self, allocation, config)
        self.trt.contexts.append(context)
        return context


class Context:
    """IExecutionContext."""

    def __init__(self, engine: SimulatedEngine, allocation: Any, config: RuntimeConfig | None) -> None:
        self.engine, self.config = engine, config
        self._cuda = engine.trt.cuda
        self._profile = -1
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._changes = 0  # a graph remembers this number
        self._ready_shapes: dict[str, tuple[int, ...]] | None = None  # those of the last call outside a capture
        self._scratch = np.zeros(SCRATCH_BYTES, np.uint8) if allocation is not Strategy.USER_MANAGED else None
        self._scratch_address = None if self._scratch is None else self._scratch.ctypes.data

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self._profile, self._changes = profile, self._changes + 1
        return not self._cuda.enqueue(stream, lambda: None)

    def set_device_memory(self, address: int, size_bytes: int) -> None:
        assert size_bytes >= SCRATCH_BYTES
        self._scratch_address, self._changes = address, self._changes + 1

    def is_stream_capturable(self, stream: int) -> bool:
        return self.engine.trt.user_allocation

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if self._shapes.get(name) != shape:
            self._shapes[name], self._changes = shape, self._changes + 1
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        if self._addresses.get(name) != address:
            self._addresses[name], self._changes = address, self._changes + 1
        return True

    def execute_async_v3(self, stream: int) -> bool:
        sizes = self._sizes()
        bucket = buckets(self.engine.graph)[self._profile]
        if self._scratch_address is None or not bucket.holds(sizes["batch"], sizes[self.engine.graph.time]):
            return False
        capturing = self._cuda.capturing(stream)
        if capturing and self._ready_shapes != self._shapes:
            self._cuda.break_capture(stream)  # it allocates for the new shapes
            return False
        if capturing and not self.engine.trt.user_allocation:
            self._cuda.break_capture(stream)
            return False
        if not capturing:
            self._ready_shapes = dict(self._shapes)
        return not self._cuda.enqueue(stream, *self._jobs(sizes, self._changes if capturing else None))

    def _sizes(self) -> dict[str, int]:
        graph = self.engine.graph
        longest = next(port for port in graph.inputs if graph.time in port.axes)
        shape = self._shapes[longest.name]
        return graph.sizes(shape[0], shape[longest.axes.index(graph.time)])

    def _jobs(self, sizes: dict[str, int], captured_at: int | None) -> list[Callable[[], None]]:
        """Two pieces of work, between which other streams may run."""
        graph, addresses, scratch = self.engine.graph, dict(self._addresses), self._scratch_address
        mark = np.random.default_rng().integers(0, 255, SCRATCH_BYTES, np.uint8)
        results: Values = {}

        def compute() -> None:
            assert scratch is not None
            memory(scratch, SCRATCH_BYTES)[:] = mark
            inputs = {port.name: tensor(addresses[port.name], port, sizes) for port in graph.inputs}
            if "tokens" in inputs and not np.isin(inputs["tokens"], np.arange(SPEECH_CODES)).all():
                self._cuda.fault()  # a gather outside its table
                return
            results.update(FUNCTIONS[graph.name](inputs))

        def write() -> None:
            assert scratch is not None
            moved_on = captured_at is not None and captured_at != self._changes
            destroyed = not np.array_equal(memory(scratch, SCRATCH_BYTES), mark)
            for port in graph.outputs:
                target = tensor(addresses[port.name], port, sizes)
                target[...] = np.nan if moved_on or destroyed or not results else results[port.name]

        return [compute, write]


def memory(address: int, count: int) -> np.ndarray:
    """The bytes at an address."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * count).from_address(address))


def tensor(address: int, port: Port, sizes: dict[str, int]) -> np.ndarray:
    """A port's values at an address."""
    shape, dtype = port.shape(sizes), np.dtype(port.dtype)
    return memory(address, int(np.prod(shape)) * dtype.itemsize).view(dtype).reshape(shape)
