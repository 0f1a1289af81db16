"""Timings of S3Gen's stages for typical windows, and rooflines from the nets' operation counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch

from engines.model_spec import MEL_BANDS, MEL_HOP_SAMPLES, SPEECH_CODES, X_VECTOR_DIM, ModelSpec
from engines.planning.operations import flops
from engines.planning.stages import s3gen_operations
from engines.s3gen.export.graphs import ENCODER
from engines.s3gen.gpu.buckets import BUCKET_NAMES, buckets, choose_profile
from engines.s3gen.gpu.buffered import BufferedRuntime
from engines.s3gen.runtime import FlowBatch, Runtime, VocoderBatch

_PROMPT_TOKENS = 250


@dataclass(frozen=True)
class TimedWindow:
    """A typical window: `rows` rows of `tokens` speech tokens behind the prompt.

    The tokens are `new` ones, left context and lookahead. The vocoder processes `frames` mel frames of each row.
    """

    rows: int
    new: int
    tokens: int
    frames: int

    @property
    def bucket(self) -> str:
        """The name of the TensorRT optimisation profile that this window uses."""
        return BUCKET_NAMES[choose_profile(buckets(ENCODER), self.rows, _PROMPT_TOKENS + self.tokens)]


WINDOWS = {
    "hop12": TimedWindow(1, 12, 15, 38),
    "hop25": TimedWindow(1, 25, 78, 62),
    "hop25x8": TimedWindow(8, 25, 78, 62),
    "offline10s": TimedWindow(1, 250, 253, 506),
}
STAGES = ("encoder", "cfm", "vocoder")
Calls = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Machine:
    """A machine's speed: `gflops` in one large matrix product, and `gb_per_s` of memory read."""

    name: str
    gflops: float
    gb_per_s: float


A10G = Machine("NVIDIA A10G", 70_000.0, 600.0)  # its data sheet: fp16 tensor cores, memory


def machine(threads: int, gflops: float | None = None) -> Machine:
    """This machine's name and its measured speed in float32; `gflops` overrides the measurement."""
    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    name = torch.cuda.get_device_name() if on_gpu else f"a CPU, {threads} threads"
    return Machine(name, gflops or _matrix_product_gflops(device), _reading_gb_per_s(device))


def _matrix_product_gflops(device: str, size: int = 1024) -> float:
    a = torch.randn(size, size, device=device)
    return 2 * size**3 / _best_s(lambda: float((a @ a)[0, 0])) / 1e9


def _reading_gb_per_s(device: str, megabytes: int = 256) -> float:
    values = torch.ones(megabytes << 18, device=device)
    return values.nbytes / _best_s(lambda: float(values.sum())) / 1e9


def _best_s(call: Callable[[], float]) -> float:
    """The shortest of six calls. Reading the result waits for a GPU."""
    times = []
    for _ in range(6):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


class FlowParts(Protocol):
    """A runtime that can run the two stages of its flow separately."""

    def parts(self, batch: FlowBatch) -> Calls:
        """Calls named `encoder` and `cfm` on rows of equal length; each call waits for its result."""
        ...


def window_calls(runtime: Runtime, window: TimedWindow) -> Calls:
    """Calls named `encoder`, `cfm` and `vocoder` that process a window."""
    flow = flow_batch(window.rows, _PROMPT_TOKENS + window.tokens)
    in_parts: FlowParts = runtime  # type: ignore[assignment]  # every windowed runtime has `parts`
    vocoder = partial(runtime.vocoder, vocoder_batch(window.rows, window.frames))
    return {**in_parts.parts(flow), "vocoder": vocoder}


def flow_batch(rows: int, tokens: int) -> FlowBatch:
    """A batch of full rows whose first tokens are a voice's prompt."""
    rng = np.random.default_rng(0)
    prompt = 2 * min(_PROMPT_TOKENS, tokens - 1)
    prompt_mel = np.zeros((rows, 2 * tokens, MEL_BANDS), np.float32)
    prompt_mel[:, :prompt] = rng.standard_normal((rows, prompt, MEL_BANDS)) * 2 - 5
    return FlowBatch(
        rng.integers(0, SPEECH_CODES, (rows, tokens)),
        np.full(rows, tokens, np.int64),
        prompt_mel,
        rng.standard_normal((rows, 2 * tokens, MEL_BANDS), np.float32),
        rng.standard_normal((rows, X_VECTOR_DIM), np.float32),
    )


def vocoder_batch(rows: int, frames: int) -> VocoderBatch:
    """A batch of full rows without state from earlier windows."""
    rng = np.random.default_rng(0)
    return VocoderBatch(
        (rng.standard_normal((rows, frames, MEL_BANDS)) * 2 - 5).astype(np.float32),
        np.full(rows, frames, np.int64),
        np.zeros((rows, frames), np.float32),
        np.zeros(rows, np.int64),
        np.zeros(rows, np.float32),
        np.zeros((rows, 9), np.float32),
        rng.standard_normal((rows, MEL_HOP_SAMPLES * frames), np.float32),
    )


@dataclass(frozen=True)
class Timed:
    """The median and the 90th percentile of a call, in milliseconds."""

    p50_ms: float
    p90_ms: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timed:
        p50, p90 = np.percentile(1000 * np.array(seconds), (50, 90))
        return cls(float(p50), float(p90))


def measure(call: Callable[[], object], repeats: int) -> Timed:
    """Time `repeats` calls, after one that is not timed."""
    call()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return Timed.of(times)


def roofline_ms(stage: str, window: TimedWindow, at: Machine, spec: ModelSpec) -> float:
    """The time for a stage's arithmetic, counted on its net, at a machine's speed."""
    length = window.frames if stage == "vocoder" else _PROMPT_TOKENS + window.tokens
    operations = s3gen_operations(spec, stage, window.rows, length, torch.float32)
    return 1000 * flops(operations) / 1e9 / at.gflops


def overlap_ms(runtime: BufferedRuntime, window: TimedWindow, batches: int) -> Mapping[str, float]:
    """Milliseconds per batch of flow and vocoder: "off" one at a time, "on" with two in flight."""
    flow = flow_batch(window.rows, _PROMPT_TOKENS + window.tokens)
    vocoder = vocoder_batch(window.rows, window.frames)
    result = {}
    for name, depth in (("off", 1), ("on", 2)):
        buffered = runtime.with_depth(depth)

        def run_all(buffered: BufferedRuntime = buffered) -> None:
            pending = [wait for _ in range(batches) for wait in _submitted(buffered, flow, vocoder)]
            for wait in pending:
                wait()

        result[name] = measure(run_all, 3).p50_ms / batches
    return result


def _submitted(runtime: BufferedRuntime, flow: FlowBatch, vocoder: VocoderBatch) -> Sequence[Callable[[], object]]:
    return runtime.submit_flow(flow), runtime.submit_vocoder(vocoder)
