"""S3Gen on this device: each runtime against torch on the CPU, then its times."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from bench.gpu.results import Recorder
from bench.gpu.steps import Machine, best_ms, peak_memory
from engines.conditioning.builtin import load_builtin
from engines.device import use_exact_float32
from engines.errors import EngineError
from engines.planning.stages import Window
from engines.s3gen.gpu.buffered import BufferedRuntime
from engines.s3gen.parity_check import (
    COMPOSITIONS,
    GPU_COMPOSITIONS,
    GPU_ROUNDS,
    LARGEST_COMPOSITIONS,
    validate,
)
from engines.s3gen.runtime import CachedFlowBatch, CachedRuntime, FlowBatch, Runtime, VocoderBatch
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.s3gen.runtimes.torch_cached import TorchCachedRuntime
from engines.tools.s3gen_times import flow_batch, vocoder_batch

_PROMPT_TOKENS = 250
_REHEARSED = ((33,), (30, 17))  # rows of tokens on a CPU, where the code is tried and not the device
_PLANNED = ("torch", "torch_graphs fp16")  # runtimes in the precision that is planned
# name: rows, tokens behind the prompt, mel frames
_WINDOWS = {
    "first window": (1, 13, 40),
    "hop 25": (1, 78, 78),
    "hop 25 x 8": (8, 78, 78),
    "hop 25 x 16": (16, 78, 78),
    "hop 100": (1, 157, 228),
    "hop 100 x 8": (8, 157, 228),
    "offline 10 s": (1, 253, 506),
}


def right(record: Recorder, machine: Machine) -> None:
    """Every runtime's results, replays among them, against torch on the CPU and then on the GPU; the tiny model first,
    so that a fault shows in seconds."""
    use_exact_float32()
    if machine.on_gpu:
        _right(_Named(record, "tiny, "), Machine(machine.device, "tiny", machine.folder))
    _right(record, machine)


class _Named:
    """A Recorder whose names begin alike."""

    def __init__(self, record: Recorder, beginning: str) -> None:
        self._record, self._beginning = record, beginning

    def __getattr__(self, method: str) -> Any:
        def recorded(name: str, *arguments: Any, **options: Any) -> Any:
            return getattr(self._record, method)(self._beginning + name, *arguments, **options)

        return recorded


def _right(record: Recorder | _Named, machine: Machine) -> None:
    trusted: Runtime = TorchRuntime(machine.checkpoint())
    if machine.on_gpu:
        on_gpu = TorchRuntime(machine.checkpoint(), device=machine.device)
        _compare(record, "torch fp32", on_gpu, trusted, "fp32", thorough=False)
        _with_tf32(record, on_gpu, trusted)
        trusted = on_gpu
    for name, precision, runtime in _others(record, machine):
        with peak_memory(record, name, machine):
            with_blocks: Runtime = trusted
            if isinstance(runtime, CachedRuntime) and isinstance(trusted, TorchRuntime):
                with_blocks = TorchCachedRuntime(trusted)  # has blocks to compare with
            _compare(record, name, runtime, with_blocks, precision, thorough=machine.on_gpu)
        if isinstance(runtime, BufferedRuntime):
            record.measured(f"{name}: sizes captured", runtime.graphs, "")
            record.measured(f"{name}: calls replayed", 100 * runtime.replayed_ratio, "%")


def _compare(
    record: Recorder | _Named, name: str, runtime: Runtime, trusted: Runtime, precision: str, *, thorough: bool
) -> None:
    def compare() -> str:
        report = validate(
            runtime,
            trusted,
            precision=precision,
            compositions=GPU_COMPOSITIONS if thorough else COMPOSITIONS if torch.cuda.is_available() else _REHEARSED,
            rounds=GPU_ROUNDS if thorough else 1,
            once=LARGEST_COMPOSITIONS if thorough else (),
        )
        assert report.passed, str(report)
        return str(report)

    record.attempt(name, compare)


def _with_tf32(record: Recorder | _Named, runtime: Runtime, trusted: Runtime) -> None:
    """What TF32 would cost; no check, because it is off."""
    torch.backends.cudnn.allow_tf32 = True
    report = validate(runtime, trusted, precision="fp32", compositions=COMPOSITIONS)
    use_exact_float32()
    record.measured("torch with TF32: frame error", report.frame_error, "", note=str(report))


def _others(record: Recorder | _Named, machine: Machine) -> Iterator[tuple[str, str, Runtime]]:
    """The runtimes other than plain torch: name, precision, runtime."""
    checkpoint = machine.checkpoint()
    from engines.s3gen.gpu.cuda import CudaUnavailable
    from engines.s3gen.gpu.torch_graphed import TorchGraphedRuntime

    for precision, dtype in (("fp32", torch.float32), ("fp16", torch.float16)):
        try:
            graphed = TorchGraphedRuntime(checkpoint, dtype=dtype)
        except CudaUnavailable as why:
            record.absent(f"torch_graphs {precision}", str(why)[:120])
            continue
        graphed.prepare()
        yield f"torch_graphs {precision}", precision, graphed
    if not machine.on_gpu:
        yield "torch again", "fp32", TorchRuntime(checkpoint, device=machine.device)
    yield "torch, cached decoding", "fp32", TorchCachedRuntime(TorchRuntime(checkpoint, device=machine.device))
    if not machine.on_gpu:
        return
    from engines.device import S3GEN_PRIORITY, CudaGraphs
    from engines.s3gen.gpu.cached_graphs import GraphedCachedRuntime

    for precision, dtype in (("fp32", torch.float32), ("fp16", torch.float16)):
        blocks = GraphedCachedRuntime(TorchRuntime(checkpoint, device=machine.device, dtype=dtype))
        blocks.prepare(CudaGraphs(torch.device(machine.device), S3GEN_PRIORITY))
        record.measured(f"torch_graphs, cached {precision}: sizes captured", blocks.static.graphs, "")
        record.measured(f"torch_graphs, cached {precision}: memory of graphs", blocks.static.nbytes / 1e6, "MB")
        yield f"torch_graphs, cached {precision}", precision, blocks


def fast(record: Recorder, machine: Machine) -> None:
    """Times of windows, flow and vocoder together."""
    use_exact_float32()
    runtimes = [("torch", "fp32", TorchRuntime(machine.checkpoint(), device=machine.device))]
    runtimes += [*_others(record, machine), *_engines(record, machine)] if machine.on_gpu else []
    windows = _WINDOWS if machine.on_gpu else {"first window": _WINDOWS["first window"]}
    for name, _, runtime in runtimes:
        for window, (rows, tokens, frames) in windows.items():
            flow, vocoder = flow_batch(rows, _PROMPT_TOKENS + tokens), vocoder_batch(rows, frames)
            repeats = machine.repeats(10 if rows == 1 else 4, 1)
            flow_ms = best_ms(lambda runtime=runtime, flow=flow: runtime.flow(flow), machine, repeats)
            vocoder_ms = best_ms(lambda runtime=runtime, v=vocoder: runtime.vocoder(v), machine, repeats)
            times = machine.planned("torch", name.removesuffix(" fp16") if name in _PLANNED else "torch")
            planned_ms = None
            if times is not None and name in _PLANNED:
                planned_ms = times.window_ms(Window(_PROMPT_TOKENS + tokens, frames), rows)
            took_ms = {"flow_ms": flow_ms, "vocoder_ms": vocoder_ms}
            record.measured(f"{name}: {window}", flow_ms + vocoder_ms, "ms", planned=planned_ms, **took_ms)
        if isinstance(runtime, BufferedRuntime):
            _time_parts(record, machine, name, runtime)
        if isinstance(runtime, CachedRuntime):
            _time_blocks(record, machine, name, runtime)


def _engines(record: Recorder, machine: Machine) -> Iterator[tuple[str, str, Runtime]]:
    """S3Gen on TensorRT, if the step before has found or built engines of the model."""
    try:
        from engines.s3gen.gpu.tensorrt import TensorRTRuntime

        runtime = TensorRTRuntime(machine.checkpoint(), cache_dir=machine.cache_dir)
    except (EngineError, ImportError) as why:
        record.absent("tensorrt", str(why)[:120])
        return
    runtime.prepare()
    yield "tensorrt fp16", "fp16", runtime


def _time_parts(record: Recorder, machine: Machine, name: str, runtime: BufferedRuntime) -> None:
    """A window's stages, the host's part of it (until both calls are submitted), and the same without graphs."""
    for window, (rows, tokens, frames) in list(_WINDOWS.items())[:3]:
        flow, vocoder = flow_batch(rows, _PROMPT_TOKENS + tokens), vocoder_batch(rows, frames)
        stages = {stage: best_ms(call, machine, 5) for stage, call in runtime.parts(flow).items()}
        for graphs, one in (("", runtime), (", without graphs", runtime.with_depth(2))):
            host_ms, whole_ms = _host_and_whole_ms(one, flow, vocoder)
            record.measured(f"{name}: host's part of {window}{graphs}", host_ms, "ms", whole_ms=whole_ms, **stages)


def _host_and_whole_ms(runtime: BufferedRuntime, flow: FlowBatch, vocoder: VocoderBatch) -> tuple[float, float]:
    times = []
    for _ in range(6):
        began_s = time.perf_counter()
        waits = runtime.submit_flow(flow), runtime.submit_vocoder(vocoder)
        submitted_s = time.perf_counter()
        for wait in waits:
            wait()
        times.append((submitted_s - began_s, time.perf_counter() - began_s))
    host_s, whole_s = sorted(times[1:])[len(times) // 2 - 1]
    return 1000 * host_s, 1000 * whole_s


def _time_blocks(record: Recorder, machine: Machine, name: str, runtime: CachedRuntime) -> None:
    """Flow alone of blocks behind a full context, one hop after the other."""
    voice = load_builtin(machine.checkpoint().conds_path)
    for rows, tokens in ((1, 28), (8, 28), (8, 107)) if machine.on_gpu else ((1, 28),):
        caches = [runtime.begin(voice) for _ in range(rows)]
        batch = CachedFlowBatch(
            tokens=np.zeros((rows, tokens), np.int64),
            token_lengths=np.full(rows, tokens),
            new_tokens=np.full(rows, tokens - 3),
            noise=np.random.default_rng(0).standard_normal((rows, 2 * tokens, 80), np.float32),
            caches=caches,
        )

        def block(batch: CachedFlowBatch = batch) -> None:
            runtime.flow_cached(batch)
            for cache in batch.caches:
                cache.commit(int(batch.new_tokens[0]))

        record.measured(
            f"{name}: flow of {rows} x {tokens} tokens", best_ms(block, machine, machine.repeats(10, 1)), "ms"
        )
