"""S3Gen on TensorRT: engines built ahead of time, double-buffered over three CUDA streams.

Knows how batches map to profiles and engines to kernels; ordering is double_buffer.py's, the driver cuda.py's. Driver
and device are probed before anything is loaded: without them deserialising an engine crashes the process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.checkpoint import Checkpoint
from engines.errors import EngineFailure
from engines.s3gen.build import ENGINE_GRAPHS, Bucket, BuildSettings, buckets, engine_folder, identity
from engines.s3gen.cuda import CudaDevice
from engines.s3gen.double_buffer import DoubleBuffer, Sizes
from engines.s3gen.engine_file import find_engine
from engines.s3gen.export import ExportSettings, export
from engines.s3gen.graphs import CFM, ENCODER, GRAPHS, VOCODER, Graph, Port
from engines.s3gen.runtime import F32, FlowBatch, VocoderBatch, VocoderResult
from engines.s3gen.trt import TensorRT, load_tensorrt

Arrays = Mapping[str, npt.NDArray[Any]]


class TensorRTRuntime:
    """Fulfils `Runtime`, and lets a caller have several batches in flight with `submit_flow` and `submit_vocoder`.

    Raises CudaUnavailable without driver or device, TensorRTMissing, ExportError, and EngineFileRefused, which names
    the command that builds what is missing. One thread at a time. It must pass gate.validate before it serves.
    """

    name = "tensorrt"

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
        trt = load_tensorrt(flavour)
        made = export(checkpoint, ExportSettings(ENGINE_GRAPHS, True, precision, 2), cache_dir=cache_dir)
        settings = BuildSettings(device.gpu.architecture)
        folder = engine_folder(cache_dir)
        paths = {name: find_engine(folder, identity(made, name, settings, trt)) for name in ENGINE_GRAPHS}
        loaded = {name: _Engine(path, GRAPHS[name], device, trt) for name, path in paths.items()}
        flow = _FlowKernel(loaded[ENCODER.name], loaded[CFM.name])
        vocoder = _VocoderKernel(loaded[VOCODER.name])
        self._flow = _Lane(ENCODER, DoubleBuffer(device, flow, _most(ENCODER), depth=depth))
        self._vocoder = _Lane(VOCODER, DoubleBuffer(device, vocoder, _most(VOCODER), depth=depth))

    def flow(self, batch: FlowBatch) -> F32:
        """As Runtime.flow."""
        return self.submit_flow(batch)()

    def vocoder(self, batch: VocoderBatch) -> VocoderResult:
        """As Runtime.vocoder."""
        return self.submit_vocoder(batch)()

    def submit_flow(self, batch: FlowBatch) -> Callable[[], F32]:
        """Start a flow batch; the returned call waits for its mel."""
        longest = int(batch.token_lengths.max())
        arrays: Arrays = {
            "tokens": batch.tokens[:, :longest],
            "token_lengths": batch.token_lengths,
            "lengths": batch.token_lengths * 2,
            "x_vector": batch.x_vector,
            "noise": batch.noise[:, : 2 * longest],
            "prompt_mel": batch.prompt_mel[:, : 2 * longest],
        }
        pending = self._flow.submit(arrays, len(batch.tokens), longest)

        def result() -> F32:
            mel = np.zeros(batch.noise.shape, np.float32)
            mel[:, : 2 * longest] = pending()["mel"]
            return mel

        return result

    def submit_vocoder(self, batch: VocoderBatch) -> Callable[[], VocoderResult]:
        """Start a vocoder batch; the returned call waits for its samples."""
        longest = int(batch.lengths.max())
        sizes = VOCODER.sizes(len(batch.lengths), longest)
        arrays: Arrays = {
            port.name: getattr(batch, port.name)[tuple(slice(n) for n in port.shape(sizes))] for port in VOCODER.inputs
        }
        pending = self._vocoder.submit(arrays, len(batch.lengths), longest)

        def result() -> VocoderResult:
            made = pending()
            waveform, f0_hz = np.zeros(batch.noise.shape, np.float32), np.zeros(batch.mel.shape[:2], np.float32)
            waveform[:, : sizes["samples"]], f0_hz[:, :longest] = made["waveform"], made["f0_hz"]
            return VocoderResult(waveform, f0_hz)

        return result


@dataclass(frozen=True)
class _Lane:
    """One double buffer and the graph whose buckets say what fits into a call."""

    graph: Graph
    buffer: DoubleBuffer

    def submit(self, arrays: Arrays, rows: int, length: int) -> Callable[[], dict[str, npt.NDArray[Any]]]:
        """Start a batch, cut into as many calls as the buckets ask for."""
        most = most_rows(buckets(self.graph), length)
        sizes = [min(most, rows - first) for first in range(0, rows, most)]
        firsts = np.cumsum([0, *sizes[:-1]])
        tickets = [
            self.buffer.submit(
                {name: array[first : first + count] for name, array in arrays.items()},
                self.graph.sizes(count, length),
            )
            for first, count in zip(firsts, sizes, strict=True)
        ]

        def result() -> dict[str, npt.NDArray[Any]]:
            parts = [ticket.result() for ticket in tickets]
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

        return result


def most_rows(profiles: tuple[Bucket, ...], length: int) -> int:
    """How many rows of `length` one call takes. Raises EngineFailure when no bucket is that long."""
    fitting = [bucket.batch[2] for bucket in profiles if bucket.length[0] <= length <= bucket.length[2]]
    if not fitting:
        longest = max(bucket.length[2] for bucket in profiles)
        raise EngineFailure(f"a window of length {length} is longer than the engines were built for ({longest})")
    return max(fitting)


def choose_profile(profiles: tuple[Bucket, ...], batch: int, length: int) -> int:
    """The profile with the least room to spare that holds this call."""
    fitting = [i for i, bucket in enumerate(profiles) if bucket.holds(batch, length)]
    if not fitting:
        raise EngineFailure(f"no engine profile holds {batch} rows of length {length}")
    return min(fitting, key=lambda i: profiles[i].batch[2] * profiles[i].length[2])


def _most(graph: Graph) -> dict[str, int]:
    """Room for the largest call of any bucket, axis by axis."""
    sizes = [graph.sizes(bucket.batch[2], bucket.length[2]) for bucket in buckets(graph)]
    return {axis: max(size[axis] for size in sizes) for axis in sizes[0]}


class _Engine:
    """A deserialised engine with one execution context per profile."""

    def __init__(self, path: Path, graph: Graph, device: CudaDevice, trt: TensorRT) -> None:
        self.graph = graph
        self._profiles = buckets(graph)
        self._runtime = trt.module.Runtime(trt.module.Logger(trt.module.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise EngineFailure(f"{path.name}: {trt.name} {trt.version} cannot load it on {device.gpu.name}")
        stream, event = device.stream(), device.event()
        self._contexts = [self._context(index, stream) for index in range(len(self._profiles))]
        device.record(event, stream)
        device.synchronize(event)  # a context may be used on another stream only once its profile is set

    def _context(self, profile: int, stream: Any) -> Any:
        context = self._engine.create_execution_context()
        if context is None or not context.set_optimization_profile_async(profile, int(stream)):
            raise EngineFailure(f"no execution context for {self.graph.name}, profile {profile} (out of memory?)")
        return context

    def enqueue(self, stream: Any, addresses: Mapping[str, int], sizes: Sizes) -> None:
        context = self._contexts[choose_profile(self._profiles, sizes["batch"], sizes[self.graph.time])]
        for port in self.graph.inputs:
            context.set_input_shape(port.name, port.shape(sizes))
        for port in (*self.graph.inputs, *self.graph.outputs):
            context.set_tensor_address(port.name, addresses[port.name])
        if not context.execute_async_v3(int(stream)):
            raise EngineFailure(f"TensorRT refused to enqueue {self.graph.name} at {dict(sizes)}")


class _FlowKernel:
    """Encoder and CFM one after the other; what goes from one to the other never leaves the device."""

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


class _VocoderKernel:
    capturable = True

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self.inputs, self.outputs = VOCODER.inputs, VOCODER.outputs
        self.inner: tuple[Port, ...] = ()

    def enqueue(self, stream: Any, addresses: Mapping[str, int], sizes: Sizes) -> None:
        self._engine.enqueue(stream, addresses, sizes)
