"""Times of calls on a GPU: each operation takes the longest of its arithmetic, its memory traffic and its launch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache

import torch

from engines.errors import InvalidInput
from engines.model_spec import ModelSpec
from engines.planning.gpus import Gpu
from engines.planning.operations import Operations, batched, in_half
from engines.planning.stages import (
    PREFIX_POSITIONS,
    Window,
    s3gen_operations,
    t3_operations,
)
from engines.s3gen.export.graphs import ENCODER, VOCODER
from engines.s3gen.gpu.buckets import buckets, max_rows
from engines.t3.gpu.cache import capacity_buckets, capacity_for

_MOST = 1e6  # microseconds and milliseconds that an assumption may name


@dataclass(frozen=True)
class Assumptions:
    """What neither a data sheet nor the nets say. Each is a guess until `make gpu-check` has measured it.

    compute_efficiency   share of the peak that a large product or convolution reaches
    memory_efficiency    share of the memory's speed
    kernel_us            the shortest kernel of a graph or an engine, with the gap behind it
    launch_us            a kernel that the host launches by itself
    t3_host_ms, t3_host_ms_per_stream  the host's part of a step of vLLM, in which the GPU waits
    window_host_ms       the host's part of a window, beside the GPU
    chunk_host_ms        the service's part of a chunk
    first_audio_ms       from the text to T3 and from the samples to the socket, with one stream
    busy_limit           how busy the GPU and the host may be before streams run dry
    text_tokens, step_positions  the prompt's text, and the position at which steps are counted
    """

    compute_efficiency: float = 0.4
    memory_efficiency: float = 0.7
    kernel_us: float = 3.0
    launch_us: float = 6.0
    t3_host_ms: float = 3.0
    t3_host_ms_per_stream: float = 0.1
    window_host_ms: float = 1.2
    chunk_host_ms: float = 0.8
    first_audio_ms: float = 4.0
    busy_limit: float = 0.7
    text_tokens: int = 40
    step_positions: int = 541

    def check(self, spec: ModelSpec) -> None:
        """Raises InvalidInput naming the first assumption that is impossible for a model."""
        for name, value in asdict(self).items():
            share = name in ("compute_efficiency", "memory_efficiency", "busy_limit")
            most = {
                "text_tokens": spec.t3.positions - PREFIX_POSITIONS - 1,
                "step_positions": spec.t3.positions - 1,
            }.get(name, 1 if share else _MOST)
            if not 0 <= value <= most or (share and value == 0):
                allowed = f"{'above' if share else 'at least'} 0 and at most {most:g}"
                message = f"{name} is {value:g}; it must be {allowed}."
                raise InvalidInput(name, message, "ASSUMPTION_OUT_OF_RANGE", value=value, allowed=allowed)


MOST_ROWS = 16  # windows of a batch on a GPU


@dataclass(frozen=True)
class How:
    """How a runtime runs operations.

    half   in 16 bits; else in float32 without tensor cores
    graph  launched as one graph or engine, not one by one
    fused  everything that is no product, convolution or attention is part of one, and constants are computed before
    """

    half: bool
    graph: bool
    fused: bool


S3GEN = {
    "tensorrt": How(half=True, graph=True, fused=True),
    "torch_graphs": How(half=True, graph=True, fused=False),
    "torch": How(half=False, graph=False, fused=False),
}
T3 = {
    "vllm": How(half=True, graph=True, fused=True),
    "torch_graphs": How(half=True, graph=True, fused=False),
    "torch": How(half=False, graph=False, fused=False),
}


def call_ms(operations: Operations, how: How, gpu: Gpu, given: Assumptions) -> float:
    """Milliseconds of a call."""
    bytes_per_s = gpu.gb_per_s * 1e9 * given.memory_efficiency
    least_s = (given.kernel_us if how.graph else given.launch_us) / 1e6
    total_s = 0.0
    for operation in operations:
        if how.fused and (operation.constant or not operation.flops):
            continue
        tflops = gpu.fp16_tflops if operation.half else gpu.fp32_tflops
        work_s = operation.flops / (tflops * 1e12 * given.compute_efficiency)
        total_s += max(work_s, (operation.weight_bytes + operation.other_bytes) / bytes_per_s, least_s)
    return 1000 * total_s


@dataclass(frozen=True)
class Times:
    """Milliseconds of the stages of one model, on one GPU, by the runtimes of its two halves."""

    spec: ModelSpec
    gpu: Gpu
    t3: str = "vllm"
    s3gen: str = "tensorrt"
    given: Assumptions = Assumptions()

    def s3gen_call_ms(self, stage: str, rows: int, length: int) -> float:
        """One call of "encoder" or "cfm" (tokens) or "vocoder" (frames), in the size that is given."""
        return _s3gen_call_ms(self, stage, rows, length)

    def window_ms(self, window: Window, rows: int) -> float:
        """Flow and vocoder of `rows` windows, cut into the calls that the GPU is prepared for."""
        sized = self.computed(window)
        return sum(
            calls * (self._flow_ms(count, sized.tokens) + self.s3gen_call_ms("vocoder", count, sized.frames))
            for calls, count in self._calls(sized, rows)
        )

    def computed(self, window: Window) -> Window:
        """The size of a window's call: on the grid for graphs and engines."""
        return window.on_grid() if S3GEN[self.s3gen].graph else window

    def _flow_ms(self, rows: int, tokens: int) -> float:
        return self.s3gen_call_ms("encoder", rows, tokens) + self.s3gen_call_ms("cfm", rows, tokens)

    def rows_of_a_call(self, window: Window) -> int:
        """The most rows that one call takes."""
        sized = window.on_grid()
        return min(max_rows(buckets(ENCODER), sized.tokens), max_rows(buckets(VOCODER), sized.frames), MOST_ROWS)

    def _calls(self, window: Window, rows: int) -> list[tuple[int, int]]:
        """How many calls of how many rows."""
        limit = self.rows_of_a_call(window)
        calls = [(rows // limit, limit), (1, rows % limit)]
        return [(times, count) for times, count in calls if times and count]

    def t3_step_gpu_ms(self, streams: int, start: int | None = None) -> float:
        """The GPU's part of a step of `streams` sequences behind `start` positions."""
        start = self.given.step_positions if start is None else start
        if self.t3 == "torch_graphs":  # reads as many positions as the step's graph has
            capacities = capacity_buckets(capacity_for(self.spec.t3.positions))
            start = next(capacity for capacity in capacities if capacity > start) - 1
        return self._t3_ms(t3_operations(self.spec, 1, start), streams)

    def t3_step_ms(self, streams: int, start: int | None = None) -> float:
        """A step: each stream's next speech token."""
        return self.t3_step_gpu_ms(streams, start) + self.t3_host_ms(streams)

    def t3_prefill_ms(self, streams: int, *, warm: bool = True) -> float:
        """The prompts of `streams` sequences, together; a warm voice's prefix is read from the cache."""
        text = self.given.text_tokens + 1
        rows, start = (text, PREFIX_POSITIONS) if warm else (PREFIX_POSITIONS + text, 0)
        return self._t3_ms(t3_operations(self.spec, rows, start), streams) + self.t3_host_ms(streams)

    def t3_host_ms(self, streams: int) -> float:
        """The host's part of a step, in which the GPU waits. torch's launches are counted in the calls themselves."""
        return self.given.t3_host_ms + self.given.t3_host_ms_per_stream * streams if self.t3 == "vllm" else 0.5

    def _t3_ms(self, operations: Operations, streams: int) -> float:
        how = T3[self.t3]
        if how.half:
            operations = in_half(operations)
        if how.graph:
            return call_ms(batched(operations, streams), how, self.gpu, self.given)
        # attention, and what belongs to it, is launched for each stream
        shared = tuple(operation for operation in operations if operation.weight_bytes)
        own = tuple(operation for operation in operations if not operation.weight_bytes)
        return call_ms(batched(shared, streams), how, self.gpu, self.given) + streams * call_ms(
            own, how, self.gpu, self.given
        )


@lru_cache(maxsize=4096)
def _s3gen_call_ms(times: Times, stage: str, rows: int, length: int) -> float:
    how = S3GEN[times.s3gen]
    operations = s3gen_operations(times.spec, stage, rows, length, torch.float16 if how.half else torch.float32)
    return call_ms(operations, how, times.gpu, times.given)
