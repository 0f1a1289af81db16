"""`mynah-engines`: one command each to export, build, prepare, check, profile and measure.

Translates arguments; the work is done by engines/s3gen. Every command prints a table and leaves a file.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engines.errors import EngineError

if TYPE_CHECKING:
    from engines.checkpoint import Checkpoint
    from engines.s3gen.runtime import Runtime

Command = Callable[[Sequence[str]], int | None]
_OUTPUT = Path("build/engines")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, 1 when a check fails or an engine error was told, 2 for wrong arguments."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] not in COMMANDS:
        print(f"usage: mynah-engines {{{' | '.join(COMMANDS)}}} [--help]", file=sys.stderr)
        return 0 if given[:1] in (["-h"], ["--help"]) else 2
    try:
        return COMMANDS[given[0]](given[1:]) or 0
    except EngineError as error:
        print(f"mynah-engines {given[0]}: {error}", file=sys.stderr)
        return 1


def _export(arguments: Sequence[str]) -> None:
    from engines.s3gen.export import main as export_main

    export_main(arguments)


def _build(arguments: Sequence[str]) -> None:
    from engines.s3gen.build import main as build_main

    build_main(arguments)


def _prepare(arguments: Sequence[str]) -> None:
    from engines.prepare import main as prepare_main

    prepare_main(arguments)


def _check(arguments: Sequence[str]) -> int:
    """A runtime against the fp32 ONNX graphs on this machine, as before serving."""
    from engines.s3gen.gate import validate

    given = _parser("check", "Compare a runtime with the fp32 ONNX graphs, as the gate does before serving")
    options = given.parse_args(arguments)
    checkpoint = _checkpoint(options)
    trusted = _runtime("onnx", checkpoint, options, precision="fp32")
    report = validate(_runtime(options.runtime, checkpoint, options), trusted, precision=options.precision)
    print(f"{options.runtime} {options.precision}: {'passed' if report.passed else 'REFUSED'}: {report}")
    _write("check", {"runtime": options.runtime, "passed": report.passed, **vars(report)})
    return 0 if report.passed else 1


def _profile(arguments: Sequence[str]) -> None:
    """Where torch's time goes, per stage: a table, a Chrome trace and the peak memory."""
    import torch

    from engines.s3gen.timing import WINDOWS, stage_calls

    parser = _parser("profile", "torch.profiler's table and Chrome trace per stage, and peak memory")
    parser.add_argument("--rows", type=int, default=12)
    parser.add_argument("--windows", nargs="+", choices=sorted(WINDOWS), default=list(WINDOWS))
    options = parser.parse_args(arguments)
    calls = stage_calls(_runtime("torch", _checkpoint(options), options), options.windows)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    _OUTPUT.mkdir(parents=True, exist_ok=True)
    for name, call in calls.items():
        call()
        with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
            call()
        print(name, profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=options.rows), sep="\n")
        profiler.export_chrome_trace(str(_OUTPUT / f"profile-{name}.json"))
    peak = {"host_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    if torch.cuda.is_available():
        peak["device_mb"] = torch.cuda.max_memory_allocated() / 1e6
    print("peak memory", {key: round(value) for key, value in peak.items()})
    _write("profile", {"peak": peak, "traces": [f"profile-{name}.json" for name in calls]})


def _bench(arguments: Sequence[str]) -> None:
    """p50 and p90 of each stage per window, beside what the arithmetic alone would take and the A10G's targets."""
    from engines.s3gen.timing import TARGETS_A10G_MS, WINDOWS, machine, measure, roofline_ms, stage_calls, table

    parser = _parser("bench", "p50 and p90 per window and stage, with a roofline beside them")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--windows", nargs="+", choices=sorted(WINDOWS), default=list(WINDOWS))
    parser.add_argument("--gflops", type=float, help="this machine's peak; default: measured with a matrix product")
    options = parser.parse_args(arguments)
    calls = stage_calls(_runtime(options.runtime, _checkpoint(options), options), options.windows)
    here = machine(options.threads, options.gflops)
    rows = {
        name: {**measure(call, options.repeats), "roofline_ms": roofline_ms(name, here)} for name, call in calls.items()
    }
    print(f"{options.runtime} {options.precision} on {here.name}, {here.gflops:.0f} GFLOP/s in a matrix product")
    print(table(rows))
    if "A10G" not in here.name:
        print(f"The targets are for an A10G and do not apply here: {TARGETS_A10G_MS}")
    _write("bench", {"runtime": options.runtime, "machine": here.name, "gflops": here.gflops, "stages": rows})


def _parser(name: str, text: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"mynah-engines {name}", description=text)
    parser.add_argument("--model", default="auto", help="as of mynah-serve")
    parser.add_argument("--cache-dir", type=Path, help="default as of mynah-serve")
    parser.add_argument("--runtime", choices=("torch", "onnx", "tensorrt"), default="onnx")
    parser.add_argument("--providers", default="cpu", help="of --runtime onnx: tensorrt,cuda,cpu")
    parser.add_argument("--precision", choices=("fp32", "fp16"), default="fp32")
    parser.add_argument("--device", default="cpu", help="of --runtime torch")
    parser.add_argument("--threads", type=int, default=2)
    return parser


def _checkpoint(options: argparse.Namespace) -> Checkpoint:
    from engines.checkpoint import open_checkpoint
    from engines.s3gen.device import use_threads

    use_threads(options.threads)
    return open_checkpoint(options.model, cache_dir=options.cache_dir, device=options.device)


def _runtime(name: str, checkpoint: Checkpoint, options: argparse.Namespace, precision: str | None = None) -> Runtime:
    precision = precision or options.precision
    if name == "onnx":
        from engines.s3gen.runtimes.onnx import OnnxRuntime

        providers = tuple(options.providers.split(","))
        return OnnxRuntime(
            checkpoint, providers=providers, threads=options.threads, cache_dir=options.cache_dir, precision=precision
        )
    if name == "tensorrt":
        from engines.s3gen.runtimes.tensorrt import TensorRTRuntime

        return TensorRTRuntime(checkpoint, cache_dir=options.cache_dir, precision=precision)
    import torch

    from engines.s3gen.runtimes.torch import TorchRuntime

    dtype = torch.float16 if precision == "fp16" else torch.float32
    return TorchRuntime(checkpoint, device=options.device, dtype=dtype)


def _write(name: str, result: Mapping[str, object]) -> None:
    _OUTPUT.mkdir(parents=True, exist_ok=True)
    path = _OUTPUT / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"-> {path}")


COMMANDS: dict[str, Command] = {
    "export": _export,
    "build": _build,
    "prepare": _prepare,
    "check": _check,
    "profile": _profile,
    "bench": _bench,
}

if __name__ == "__main__":
    raise SystemExit(main())
