"""S3Gen as two kernels on CUDA streams: batches go through double buffers, cut to the size of a kernel's call.

Maps batches to named arrays and to calls. double_buffer.py orders the work, cuda.py calls the driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.model_spec import MEL_FRAMES_PER_TOKEN
from engines.s3gen.export.graphs import CFM, ENCODER, VOCODER, Graph, Port
from engines.s3gen.gpu.buckets import buckets, capacities, graph_sizes, max_rows, on_grid
from engines.s3gen.gpu.double_buffer import Device, DoubleBuffer, Kernel
from engines.s3gen.runtime import F32, FlowBatch, VocoderBatch, VocoderResult

Arrays = Mapping[str, npt.NDArray[Any]]


class BufferedRuntime:
    """A Runtime that can also have several batches in flight, with `submit_flow` and `submit_vocoder`.

    For one thread at a time. At most `depth` batches of each kernel are in flight; 1 disables the overlap.
    """

    cfm_s = None  # encoder and CFM are one kernel

    def __init__(self, name: str, device: Device, kernels: Kernels, *, depth: int = 2) -> None:
        self.name = name
        self._device, self._kernels, self.depth = device, kernels, depth
        self._flow = self._lane(ENCODER, kernels.flow, depth)
        self._vocoder = self._lane(VOCODER, kernels.vocoder, depth)

    def _lane(self, graph: Graph, kernel: Kernel, depth: int) -> Lane:
        capacity, compute = capacities(graph), self._kernels.compute
        return Lane(graph, DoubleBuffer(self._device, kernel, capacity, compute=compute, depth=depth))

    def prepare(self) -> None:
        """Capture the usual sizes as CUDA graphs. Call it once, before anything else runs on the device."""
        for lane in (self._flow, self._vocoder):
            lane.buffer.prepare(graph_sizes(lane.graph))

    def keep_compiled(self) -> None:
        """Keep for the next start what the runtime has compiled in this one, if it compiles."""

    @property
    def graphs(self) -> int:
        """The number of sizes that are replayed as CUDA graphs."""
        return self._flow.buffer.graphs + self._vocoder.buffer.graphs

    @property
    def failed_captures(self) -> int:
        """The number of sizes whose capture failed, and which run eagerly for good."""
        return self._flow.buffer.failed_captures + self._vocoder.buffer.failed_captures

    @property
    def sizes_to_capture(self) -> int:
        """The number of sizes that `prepare` tries to capture."""
        return sum(len(graph_sizes(lane.graph)) for lane in (self._flow, self._vocoder))

    @property
    def buffer_bytes(self) -> int:
        """Memory on the device for batches."""
        return self._flow.buffer.device_bytes + self._vocoder.buffer.device_bytes

    @property
    def replayed_ratio(self) -> float:
        """The share of the calls so far that were replayed."""
        buffers = (self._flow.buffer, self._vocoder.buffer)
        replayed, eager = sum(b.replayed for b in buffers), sum(b.eager for b in buffers)
        return replayed / max(1, replayed + eager)

    def with_depth(self, depth: int) -> BufferedRuntime:
        """Another runtime on the same kernels, with its own buffers."""
        return BufferedRuntime(self.name, self._device, self._kernels, depth=depth)

    def flow(self, batch: FlowBatch) -> F32:
        """As Runtime.flow."""
        return self.submit_flow(batch)()

    def vocoder(self, batch: VocoderBatch) -> VocoderResult:
        """As Runtime.vocoder."""
        return self.submit_vocoder(batch)()

    def submit_flow(self, batch: FlowBatch) -> Callable[[], F32]:
        """Start a flow batch. Returns a function that waits for its mel."""
        longest = int(batch.token_lengths.max())
        pending = self._flow.submit(_flow_arrays(batch, longest), len(batch.tokens), longest)

        def result() -> F32:
            mel = np.zeros(batch.noise.shape, np.float32)
            mel[:, : 2 * longest] = pending()["mel"]
            return mel

        return result

    def parts(self, batch: FlowBatch) -> dict[str, Callable[[], object]]:
        """As s3gen_times.InParts."""
        rows, tokens = batch.tokens.shape
        arrays = _flow_arrays(batch, tokens)
        encoder, cfm = self._lane(ENCODER, self._kernels.encoder, 1), self._lane(CFM, self._kernels.cfm, 1)
        encoded: Arrays = {**arrays, **encoder.submit(arrays, rows, tokens)()}
        return {
            "encoder": lambda: encoder.submit(arrays, rows, tokens)(),
            "cfm": lambda: cfm.submit(encoded, rows, 2 * tokens)(),
        }

    def submit_vocoder(self, batch: VocoderBatch) -> Callable[[], VocoderResult]:
        """Start a vocoder batch. Returns a function that waits for its samples."""
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


def _flow_arrays(batch: FlowBatch, longest: int) -> Arrays:
    return {
        "tokens": batch.tokens[:, :longest],
        "token_lengths": batch.token_lengths,
        "lengths": batch.token_lengths * MEL_FRAMES_PER_TOKEN,
        "x_vector": batch.x_vector,
        "noise": batch.noise[:, : 2 * longest],
        "prompt_mel": batch.prompt_mel[:, : 2 * longest],
    }


@dataclass(frozen=True)
class Kernels:
    """A runtime's kernels over the ports of the padded graphs.

    The flow's inputs are the encoder's and those of the CFM that the encoder does not compute. Its two parts are only
    for timing. All kernels run on `compute`, because they may share scratch memory.
    """

    flow: Kernel
    vocoder: Kernel
    encoder: Kernel
    cfm: Kernel
    compute: Any


@dataclass(frozen=True)
class Lane:
    """A double buffer, and the graph whose buckets bound its calls."""

    graph: Graph
    buffer: DoubleBuffer

    def submit(self, arrays: Arrays, rows: int, length: int) -> Callable[[], dict[str, npt.NDArray[Any]]]:
        """Start a batch, cut into as many calls as the buckets demand, each padded to the grid of sizes.

        Full rows of a size that no graph replays are not padded, if the kernel gains by it.
        """
        limit = max_rows(buckets(self.graph), on_grid(self.graph, 1, length)[1])
        counts = [min(limit, rows - first) for first in range(0, rows, limit)]
        tickets = []
        for first, count in zip(np.cumsum([0, *counts[:-1]]), counts, strict=True):
            cut = {name: array[first : first + count] for name, array in arrays.items()}
            sizes = self.graph.sizes(*on_grid(self.graph, count, length))
            full = (
                self.buffer.unpadded
                and not self.buffer.replays(sizes)
                and bool((cut[self.graph.lengths] == length).all())
            )
            tickets.append(self.buffer.submit(cut, self.graph.sizes(count, length) if full else sizes, full=full))

        def result() -> dict[str, npt.NDArray[Any]]:
            parts = [ticket.result() for ticket in tickets]
            return {port.name: np.concatenate(list(self._cut(port, parts, counts, length))) for port in self.outputs}

        return result

    @property
    def outputs(self) -> tuple[Port, ...]:
        return self.buffer.outputs

    def _cut(
        self, port: Port, parts: Sequence[Mapping[str, npt.NDArray[Any]]], counts: Sequence[int], length: int
    ) -> Iterator[npt.NDArray[Any]]:
        """The output of each call without the padding."""
        for part, count in zip(parts, counts, strict=True):
            yield part[port.name][tuple(slice(n) for n in port.shape(self.graph.sizes(count, length)))]
