"""S3Gen on this device: each runtime against torch on the CPU, then its times."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from bench.gpu.results import Recorder
from bench.gpu.steps import Machine, best_ms, peak_memory
from engines.device import use_exact_float32
from engines.planning.stages import Window
from engines.s3gen.gpu.buffered import BufferedRuntime
from engines.s3gen.parity_check import (
    COMPOSITIONS,
    GPU_COMPOSITIONS,
    GPU_ROUNDS,
    LARGEST_COMPOSITIONS,
    validate,
)
from engines.s3gen.runtime import Runtime
from engines.s3gen.runtimes.torch import TorchRuntime
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
    """Every runtime's results, replays among them, against torch on the CPU and then on the GPU."""
    use_exact_float32()
    trusted: Runtime = TorchRuntime(machine.checkpoint())
    if machine.on_gpu:
        on_gpu = TorchRuntime(machine.checkpoint(), device=machine.device)
        _compare(record, "torch fp32", on_gpu, trusted, "fp32", thorough=False)
        _with_tf32(record, on_gpu, trusted)
        trusted = on_gpu
    for name, precision, runtime in _others(record, machine):
        with peak_memory(record, name, machine):
            _compare(record, name, runtime, trusted, precision, thorough=machine.on_gpu)
        if isinstance(runtime, BufferedRuntime):
            record.measured(f"{name}: sizes captured", runtime.graphs, "")
            record.measured(f"{name}: calls replayed", 100 * runtime.replayed_ratio, "%")


def _compare(
    record: Recorder, name: str, runtime: Runtime, trusted: Runtime, precision: str, *, thorough: bool
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


def _with_tf32(record: Recorder, runtime: Runtime, trusted: Runtime) -> None:
    """What TF32 would cost; no check, because it is off."""
    torch.backends.cudnn.allow_tf32 = True
    report = validate(runtime, trusted, precision="fp32", compositions=COMPOSITIONS)
    use_exact_float32()
    record.measured("torch with TF32: frame error", report.frame_error, "", note=str(report))


def _others(record: Recorder, machine: Machine) -> Iterator[tuple[str, str, Runtime]]:
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
    from engines.s3gen.runtimes.torch_cached import TorchCachedRuntime

    yield "torch, cached decoding", "fp32", TorchCachedRuntime(TorchRuntime(checkpoint, device=machine.device))


def fast(record: Recorder, machine: Machine) -> None:
    """Times of windows, flow and vocoder together."""
    use_exact_float32()
    runtimes = [("torch", "fp32", TorchRuntime(machine.checkpoint(), device=machine.device))]
    runtimes += list(_others(record, machine)) if machine.on_gpu else []
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
